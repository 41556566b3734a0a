"""The map x -> f(x; theta): kernels, blocks of particles, scaling laws, networks, models."""

from meanfield.nn import inits, scaling
from meanfield.nn.attention import Head, attention
from meanfield.nn.attention_maps import (
    Conditioning,
    attention_conditioning,
    attention_entropy,
    attention_maps,
    effective_rank,
    token_clustering,
)
from meanfield.nn.block import Block, block
from meanfield.nn.embed import (
    Embedding,
    Readout,
    byte_text,
    class_read,
    identity,
    label_read,
    patches,
)
from meanfield.nn.interop import flax_parameters, heads_from_flax
from meanfield.nn.kernels import Kernel, RowKernel, gaussian, linear, softmax
from meanfield.nn.masks import causal_mask
from meanfield.nn.mlp import Neuron, mlp
from meanfield.nn.model import Model, Theta, model
from meanfield.nn.network import Network, network
from meanfield.nn.positions import sinusoidal
from meanfield.nn.scaling import Scaling, complete_p, mean_field, ntk, standard

__all__ = [
    "Block",
    "Conditioning",
    "Embedding",
    "Head",
    "Kernel",
    "Model",
    "Network",
    "Neuron",
    "Readout",
    "RowKernel",
    "Scaling",
    "Theta",
    "attention",
    "attention_conditioning",
    "attention_entropy",
    "attention_maps",
    "block",
    "byte_text",
    "causal_mask",
    "class_read",
    "complete_p",
    "effective_rank",
    "flax_parameters",
    "gaussian",
    "heads_from_flax",
    "identity",
    "inits",
    "label_read",
    "linear",
    "mean_field",
    "mlp",
    "model",
    "network",
    "ntk",
    "patches",
    "scaling",
    "sinusoidal",
    "softmax",
    "standard",
    "token_clustering",
]
