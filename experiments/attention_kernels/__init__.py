"""Experiments on Song et al. 2024, Unraveling the Gradient Descent Dynamics of Transformers."""
