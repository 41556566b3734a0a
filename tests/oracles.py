"""Numpy loops that say again, slowly and one number at a time, what the library computes.

Nothing here imports the library. Masks are arrays of bool [n n], True where a query may attend.
"""

import math

import numpy as np


def kernel_loop(name, queries, keys, mask=None, *, scale=None, bandwidth=0.5):
    """Attention weights of one head; `name` is softmax, gaussian, normalized or linear."""
    tokens = len(queries)
    scale = queries.shape[1] ** -0.5 if scale is None else scale
    weights = np.zeros((tokens, tokens))
    for a in range(tokens):
        allowed = [b for b in range(tokens) if mask is None or mask[a, b]]
        for b in allowed:
            gap = queries[a] - keys[b]
            product = scale * float(queries[a] @ keys[b])
            distance = bandwidth * scale * float(gap @ gap)
            weights[a, b] = {
                "softmax": math.exp(product),
                "gaussian": math.exp(-distance),
                "normalized": math.exp(-distance),
                "linear": product,
            }[name]
        if name in {"softmax", "normalized"} and allowed:
            weights[a] /= math.fsum(weights[a])
    return weights


def head_loop(tokens, head, kernel="softmax", mask=None):
    """The update of all tokens by one attention head (query, key, value, output)."""
    query, key, value, output = head
    weights = kernel_loop(kernel, tokens @ query, tokens @ key, mask)
    update = np.zeros_like(tokens)
    for a in range(len(tokens)):
        for b in range(len(tokens)):
            update[a] += weights[a, b] * (tokens[b] @ value) @ output
    return update


def neuron_loop(tokens, neuron, activation=math.tanh):
    """The update of all tokens by one feed-forward neuron (weight_in, bias, weight_out)."""
    weight_in, bias, weight_out = neuron
    update = np.zeros_like(tokens)
    for a, token in enumerate(tokens):
        update[a] = activation(float(token @ weight_in + bias)) * weight_out
    return update


def particle(tree, *index):
    """One particle of a tree of numpy arrays, or one layer of them."""
    return tuple(np.asarray(leaf)[index] for leaf in tree)


def network_loop(tokens, blocks, steps, token_factor=1.0):
    """Half-steps T <- T + step * sum_j f(token_factor * T, theta_j), layer by layer.

    `blocks` is a list of (encoder, tree with axes [l, m, ...]), `steps` one number per block.
    """
    tokens = np.array(tokens)
    for layer in range(len(blocks[0][1][0])):
        for (encoder, tree), step in zip(blocks, steps, strict=True):
            width = tree[0].shape[1]
            updates = [
                encoder(token_factor * tokens, particle(tree, layer, j)) for j in range(width)
            ]
            tokens = tokens + step * np.sum(updates, axis=0)
    return tokens


def head_pullback(tokens, head, upstream):
    """Gradients of sum(upstream * head_loop) by the chain rule: (of tokens, of the head)."""
    query, key, value, output = head
    scale = query.shape[1] ** -0.5
    queries, keys, values = tokens @ query, tokens @ key, tokens @ value
    weights = kernel_loop("softmax", queries, keys)
    of_mixed = upstream @ output.T
    of_weights = of_mixed @ values.T
    of_values = weights.T @ of_mixed
    centred = of_weights - np.sum(of_weights * weights, axis=1, keepdims=True)
    of_queries = scale * (weights * centred) @ keys
    of_keys = scale * (weights * centred).T @ queries
    of_tokens = of_queries @ query.T + of_keys @ key.T + of_values @ value.T
    of_head = (
        tokens.T @ of_queries,
        tokens.T @ of_keys,
        tokens.T @ of_values,
        (weights @ values).T @ upstream,
    )
    return of_tokens, of_head


def neuron_pullback(tokens, neuron, upstream):
    """Gradients of sum(upstream * neuron_loop) with tanh: (of tokens, of the neuron)."""
    weight_in, bias, weight_out = neuron
    hidden = np.tanh(tokens @ weight_in + bias)
    of_hidden = (upstream @ weight_out) * (1 - hidden**2)
    of_neuron = (tokens.T @ of_hidden, np.sum(of_hidden), upstream.T @ hidden)
    return np.outer(of_hidden, weight_in), of_neuron


def patches_loop(image, side):
    """Square patches of an image [h w c], row by row, each as a vector."""
    height, width, _ = image.shape
    return np.array(
        [
            image[top : top + side, left : left + side].ravel()
            for top in range(0, height, side)
            for left in range(0, width, side)
        ]
    )


def cross_entropy_loop(logits, label):
    """-log softmax(logits)[label]."""
    return math.log(math.fsum(math.exp(x) for x in logits)) - float(logits[label])
