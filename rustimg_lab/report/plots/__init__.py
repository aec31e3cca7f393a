"""Plots, by subject."""

from rustimg_lab.report.plots import attribution, deploy, machines, recommendation, robustness, sizes, studies, style
