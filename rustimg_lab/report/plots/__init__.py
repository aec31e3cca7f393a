"""Plots, by subject."""

from rustimg_lab.report.plots import attribution, deploy, recommendation, robustness, sizes, studies, style

__all__ = ["attribution", "deploy", "recommendation", "robustness", "sizes", "studies", "style"]
