"""Tables and sentences, by subject."""

from rustimg_lab.report.views import (
    attribution,
    deploy,
    layouts,
    machines,
    profile_effects,
    provenance,
    recommendation,
    regression,
    robustness,
    sizes,
    studies,
    style,
    verdicts,
)
