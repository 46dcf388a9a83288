"""Traced functions with all that doesn't depend on their arguments computed once."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

_aten = torch.ops.aten
_CHECKS = (_aten.is_same_size.default, _aten._has_same_storage_numel.default)
# torch writes some forward derivatives with operations that `vmap` can't batch.
_PLAIN = {
    torch.ops.prims.add.default: _aten.add.Tensor,
    torch.ops.prims.sub.default: _aten.sub.Tensor,
    torch.ops.prims.mul.default: _aten.mul.Tensor,
    torch.ops.prims.div.default: _aten.div.Tensor,
}
_VIEWS = (
    _aten.alias.default,
    _aten.expand.default,
    _aten.select.int,
    _aten.slice.Tensor,
    _aten.view.default,
)


def fold_constants(traced: fx.GraphModule) -> fx.GraphModule:
    """Compute the part of a traced function that its arguments have no part in."""
    # Memory: of the constants only those are kept that the rest asks for, and none twice. torch's
    # own folding copies each, and keeps those that only its checks of shapes ask for: 2.5 times as
    # much for a U-net with BatchNorm, and 4 times while it's at it.
    _clean(traced.graph)
    constant = _constant_nodes(traced.graph)
    crossing = {
        parent
        for node in traced.graph.nodes
        if node not in constant
        for parent in node.all_input_nodes
        if parent in constant
    }
    values = _evaluate(traced, constant, crossing)
    folded, root = fx.Graph(), torch.nn.Module()
    translated: dict[fx.Node, Any] = {}
    for node in traced.graph.nodes:
        if node not in constant:
            translated[node] = folded.node_copy(node, translated.__getitem__)
            if node.op == "get_attr":  # of something that the function changes in place
                setattr(root, str(node.target), getattr(traced, str(node.target)))
        elif node in crossing:
            value = values.pop(node)
            if isinstance(value, Tensor):
                name = f"constant_{len(translated)}"
                root.register_buffer(name, value)
                value = folded.get_attr(name)
            translated[node] = value
    return fx.GraphModule(root, folded)


# Checks have passed, an alias is what it's of, and what batches takes the place of what doesn't.
def _clean(graph: fx.Graph) -> None:
    for node in reversed(graph.nodes):
        if node.target in _CHECKS and not node.users:
            graph.erase_node(node)
        elif node.target is _aten.alias.default:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        else:
            node.target = _PLAIN.get(node.target, node.target)


def _constant_nodes(graph: fx.Graph) -> set[fx.Node]:
    constant: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op in ("call_function", "get_attr") and constant.issuperset(node.all_input_nodes):
            constant.add(node)
    # What is written to must be made anew at every call, and so must its views.
    spoilt = [
        node.args[0]
        for node in graph.nodes
        if node not in constant and _is_in_place(node) and node.args[0] in constant
    ]
    while spoilt:
        node = spoilt.pop()
        constant.discard(node)
        if node.target in _VIEWS:
            spoilt.append(node.args[0])
        spoilt += [user for user in node.users if user in constant]
    return constant


def _is_in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _evaluate(
    traced: fx.GraphModule, constant: set[fx.Node], crossing: set[fx.Node]
) -> dict[fx.Node, Any]:
    values: dict[fx.Node, Any] = {}
    left = {node: sum(user in constant for user in node.users) for node in constant}
    for node in traced.graph.nodes:
        if node not in constant:
            continue
        if node.op == "get_attr":
            value = getattr(traced, str(node.target))
        else:
            args, kwargs = (map_arg(each, values.__getitem__) for each in (node.args, node.kwargs))
            value = node.target(*args, **kwargs)
        if isinstance(value, Tensor) and value._is_zerotensor():
            value = torch.zeros(value.shape, dtype=value.dtype, device=value.device)
        values[node] = value
        for parent in {*node.all_input_nodes, node}:
            left[parent] -= parent is not node
            if not left[parent] and parent not in crossing:
                values.pop(parent, None)
    return values
