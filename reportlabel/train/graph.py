"""The network as an ONNX graph that onnxruntime runs fast on one core, with weights in 8 bits.

The graph is written operator by operator instead of being traced, so that three things hold which no optimiser finds:
two linear maps of the head with nothing between them are one matrix; query, key and value are one matrix in a fused
attention; what a finding sees is a weighted sum over tokens, without a softmax over short rows or a transposition.
Operators of the domain ``com.microsoft`` are described in onnxruntime's ``docs/ContribOperators.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from reportlabel.train.model import LOOK_SCALE, FindingModel

Matrix = npt.NDArray[np.float32]
INPUTS = ("input_ids", "token_type_ids", "attention_mask")
OUTPUT = "scores"
_MICROSOFT = "com.microsoft"
_OPSET = 18
_IR_VERSION = 9
_STEPS = 63
"""Weights use seven of the eight bits: processors without VNNI add two products in 16 bits, which eight overflow."""
_LARGEST_LOOK = 60.0
"""Beyond it the exponential of a look would leave the range of a float; no trained look comes near."""


@dataclass
class _Graph:
    """Nodes and constants in the order they are written; names are counted."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, values: npt.NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def whole(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def several(self, operator: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        number = len(self.nodes)
        names = [f"{operator}_{number}_{at}" for at in range(outputs)]
        self.nodes.append(
            helper.make_node(operator, list(inputs), names, name=f"{operator}_{number}", domain=domain, **attributes)
        )
        return names

    def __call__(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.several(operator, *inputs, outputs=1, domain=domain, **attributes)[0]

    def linear(self, states: str, weight: Matrix, bias: Matrix) -> str:
        """``states @ weight + bias``; the states are brought into 8 bits when the graph runs."""
        steps, scales = quantised(weight)
        return self(
            "DynamicQuantizeMatMul",
            *(states, self.constant(steps), self.constant(scales)),
            *(self.constant(np.zeros_like(scales, np.int8)), self.constant(bias)),
            domain=_MICROSOFT,
        )

    def normalised(self, states: str, weight: Matrix, bias: Matrix, epsilon: float) -> str:
        return self("LayerNormalization", states, self.constant(weight), self.constant(bias), axis=-1, epsilon=epsilon)


def quantised(weight: Matrix, *, axis: int = 0) -> tuple[npt.NDArray[np.int8], Matrix]:
    """A matrix as whole numbers of -63 to 63 and a scale for each of its columns (``axis`` 1: rows)."""
    scales = np.abs(weight).max(axis, keepdims=True) / _STEPS
    scales = np.where(scales == 0, 1, scales).astype(np.float32)
    return np.round(weight / scales).astype(np.int8), scales.squeeze(axis)


def finding_graph(model: FindingModel) -> onnx.ModelProto:
    """The graph of a network: inputs ``INPUTS`` (rows, tokens), output (rows, findings, 4) as of ``forward``."""
    graph = _Graph()
    weights = {name: one.detach().float().numpy() for name, one in model.state_dict().items()}
    config = model.encoder.config
    _, types, mask = INPUTS
    states = _embeddings(graph, weights, config.layer_norm_eps)
    whole_mask = graph("Cast", mask, to=TensorProto.INT32)
    for number in range(config.num_hidden_layers):
        of = f"encoder.encoder.layer.{number}."
        layer = {name.removeprefix(of): one for name, one in weights.items() if name.startswith(of)}
        states = _layer(graph, layer, states, whole_mask, config.num_attention_heads, config.layer_norm_eps)
    own = graph("Mul", graph("Cast", types, to=TensorProto.FLOAT), graph("Cast", mask, to=TensorProto.FLOAT))
    _head(graph, weights, states, graph("Unsqueeze", own, graph.whole(2)))
    findings = weights["bias"].shape[0]
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "findings",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"]) for name in INPUTS],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows", findings, 4])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)],
        producer_name="reportlabel",
    )
    made.ir_version = _IR_VERSION
    return made


def write_finding_graph(model: FindingModel, target: Path) -> None:
    """Write the graph of a network."""
    onnx.save(finding_graph(model), str(target))


def _embeddings(graph: _Graph, weights: dict[str, Matrix], epsilon: float) -> str:
    ids, types, _ = INPUTS
    of = "encoder.embeddings."
    steps, scales = quantised(weights[f"{of}word_embeddings.weight"], axis=1)
    pieces = graph(
        "Mul",
        graph("Cast", graph("Gather", graph.constant(steps), ids), to=TensorProto.FLOAT),
        graph("Gather", graph.constant(scales[:, np.newaxis]), ids),
    )
    width = graph("Slice", graph("Shape", ids), graph.whole(1), graph.whole(2))
    places = graph(
        "Slice",
        *(graph.constant(weights[f"{of}position_embeddings.weight"]), graph.whole(0), width, graph.whole(0)),
    )
    kinds = graph("Gather", graph.constant(weights[f"{of}token_type_embeddings.weight"]), types)
    return graph.normalised(
        graph("Add", graph("Add", pieces, kinds), places),
        weights[f"{of}LayerNorm.weight"],
        weights[f"{of}LayerNorm.bias"],
        epsilon,
    )


def _layer(graph: _Graph, layer: dict[str, Matrix], states: str, mask: str, heads: int, epsilon: float) -> str:
    def dense(name: str, given: str) -> str:
        return graph.linear(given, layer[f"{name}.dense.weight"].T, layer[f"{name}.dense.bias"])

    def added(name: str, given: str, before: str) -> str:
        norm = f"{name}.LayerNorm"
        return graph.normalised(graph("Add", given, before), layer[f"{norm}.weight"], layer[f"{norm}.bias"], epsilon)

    three = ("query", "key", "value")
    steps, scales = quantised(np.concatenate([layer[f"attention.self.{one}.weight"].T for one in three], axis=1))
    bias = np.concatenate([layer[f"attention.self.{one}.bias"] for one in three])
    given, scale, zero = graph.several("DynamicQuantizeLinear", states, outputs=3)
    seen = graph(
        "QAttention",
        *(given, graph.constant(steps), graph.constant(bias), scale, graph.constant(scales), mask, zero),
        graph.constant(np.zeros_like(scales, np.int8)),
        domain=_MICROSOFT,
        num_heads=heads,
        unidirectional=0,
    )
    states = added("attention.output", dense("attention.output", seen), states)
    inner = graph("Gelu", dense("intermediate", states), domain=_MICROSOFT)
    return added("output", dense("output", inner), states)


def _head(graph: _Graph, weights: dict[str, Matrix], states: str, own: str) -> None:
    """``FindingModel.scores``; ``own`` is 1 for tokens of the sentence itself."""
    query, mention = weights["query.weight"], weights["mention.weight"]
    findings = query.shape[0]
    parts = [
        (query @ weights["key.weight"] / LOOK_SCALE, query @ weights["key.bias"] / LOOK_SCALE),
        (mention @ weights["value.weight"], mention @ weights["value.bias"] + weights["bias"]),
        (weights["stance.weight"], weights["stance.bias"]),
    ]
    looks, mentions, stance = graph.several(
        "Split",
        graph.linear(
            states,
            np.concatenate([weight.T for weight, _ in parts], axis=1),
            np.concatenate([bias for _, bias in parts]),
        ),
        graph.whole(findings, findings, weights["stance.weight"].shape[0]),
        outputs=3,
        axis=-1,
    )
    largest = graph.constant(np.array(_LARGEST_LOOK, np.float32))
    least = graph.constant(np.array(-_LARGEST_LOOK, np.float32))
    shares = graph("Mul", graph("Exp", graph("Clip", looks, least, largest)), own)
    tokens, last = graph.whole(1), graph.whole(2)
    total = graph("Unsqueeze", graph("ReduceSum", shares, tokens, keepdims=0), last)
    summed = graph("ReduceSum", graph("Mul", shares, mentions), tokens, keepdims=0)
    status = graph(
        "Add",
        graph("MatMul", graph("Gelu", stance, domain=_MICROSOFT), graph.constant(weights["status.weight"].T)),
        graph.constant(weights["status.bias"]),
    )
    statuses = graph("FusedMatMul", shares, status, domain=_MICROSOFT, transA=1)
    both = graph("Concat", graph("Unsqueeze", summed, last), statuses, axis=-1)
    graph.nodes.append(helper.make_node("Div", [both, total], [OUTPUT], name=OUTPUT))
