"""Experiments on Gao et al. 2024, Global Convergence in Training Large-Scale Transformers."""
