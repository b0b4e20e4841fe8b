"""The five functions of the engine that a student writes anew, and how one is blanked.

A blank is cut out of the live source by its syntax tree, so it cannot go stale: signature and
docstring stay, the body raises `NotImplementedError`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from mspeckv.settings import refuse


@dataclass(frozen=True)
class Blank:
    """A function to write.

    Attributes:
        name: what the command line calls it.
        file: where it stands, from the checkout's folder.
        function: its qualified name there.
        task: what it does, in a sentence or two.
        paper: where the idea is from.
        tests: the project's own tests that judge it. Each needs this function, and of the others
            only those before it in `BLANKS`.
    """

    name: str
    file: str
    function: str
    task: str
    paper: str
    tests: tuple[str, ...]


_SAMPLING, _COST = "tests/test_sampling.py::", "tests/test_cost.py::"
_ENUMERATION, _QUANTIZE = "tests/test_enumeration.py::", "tests/test_quantize.py::"

BLANKS: tuple[Blank, ...] = (
    Blank(
        "residual",
        "mspeckv/decoding/sampling.py",
        "residual",
        "After a rejected guess the next token is drawn from what the guess's distribution left of "
        "the target's. Mind the case in which rounding leaves nothing.",
        "Leviathan et al., arXiv 2211.17192, section 2.3; Chen et al., arXiv 2302.01318, theorem 1",
        (f"{_SAMPLING}test_the_residual_is_what_is_left_of_p_after_q",),
    ),
    Blank(
        "accept",
        "mspeckv/decoding/sampling.py",
        "Sampler.verify",
        "Keep each guess with probability min(1, p / q), stop at the first that is rejected, and "
        "draw the token that follows: from the residual, or from the bonus row where all were "
        "kept. Use `self.accepts` and `self.draw`: they make the random choices.",
        "Leviathan et al., arXiv 2211.17192, appendix A.1",
        (
            f"{_ENUMERATION}test_emitted_distribution_is_the_targets",
            f"{_ENUMERATION}test_other_guessers_and_processors_keep_the_distribution",
            f"{_SAMPLING}test_logits_that_are_not_finite_are_not_drawn_from",
        ),
    ),
    Blank(
        "pack",
        "mspeckv/kv/quantize.py",
        "BlockCodec._quantize",
        "Turn a block of floats into codes, a step and a low, and put them into the record's "
        "parts. Every value must come back within half a step, though step and low are kept in "
        "half precision. `_half_down`, `_half_up` and `pack_bits` are there.",
        "KIVI: Liu et al., arXiv 2402.02750, section 3",
        (
            f"{_QUANTIZE}test_error_is_at_most_half_a_step",
            f"{_QUANTIZE}test_values_on_the_grid_survive",
            f"{_QUANTIZE}test_keys_and_values_may_have_widths_of_their_own",
            f"{_QUANTIZE}test_two_planes_joined_are_the_int8_record_and_the_upper_alone_is_int4",
        ),
    ),
    Blank(
        "choose",
        "mspeckv/kv/retrieval.py",
        "RetrievalCache.choose",
        "Choose the chunks of the prompt that tier 1 will see, and copy them to the front of its "
        "layer, the recent tokens after them. `score_chunks`, `best_chunks` and `self.gather` are "
        "there; `self.chosen[layer]` remembers the choice.",
        "TriForce: Sun et al., arXiv 2404.11912, section 4.1",
        (
            "tests/test_caches.py::"
            "test_retrieval_keeps_the_first_chunk_and_the_chunks_that_queries_match",
            "tests/test_retrieval_policies.py::test_the_policy_really_chooses",
        ),
    ),
    Blank(
        "cost",
        "study/mspeckv_study/whatif/passes.py",
        "pass_time",
        "Say how long one pass takes: from the table of measured passes, where the machine has "
        "one, or by the roofline. Count the bytes that a layer reads and the operations it does, "
        "and use `work_ms`; the module's first lines have the formula.",
        "Williams et al., Roofline, CACM 52(4), 2009",
        (
            f"{_COST}test_a_layer_takes_its_bytes_over_the_bandwidth",
            f"{_COST}test_measured_passes_stand_in_for_the_roofline",
            f"{_COST}test_overlap_is_that_of_a_simulated_pipeline",
            f"{_COST}test_published_cells_are_predicted_within_a_fifth",
        ),
    ),
)
"""In the order in which to write them."""


def blanks(names: Sequence[str]) -> tuple[Blank, ...]:
    """Those of the names, in order; all of them where none is named.

    Raises:
        ValueError: an unknown name.
    """
    known = [blank.name for blank in BLANKS]
    for name in names:
        if name not in known:
            raise refuse("blank", name, f"use one of {', '.join(known)}")
    return tuple(blank for blank in BLANKS if not names or blank.name in names)


def blanked(source: str, blank: Blank) -> str:
    """The source with the function's body taken out."""
    return with_body(source, blank.function, f'raise NotImplementedError("write me: {blank.name}")')


def with_body(source: str, function: str, body: str) -> str:
    """The source with another body under the function's docstring.

    Args:
        body: its lines, not indented.
    """
    first, last, indent = _body_lines(source, function)
    lines = source.splitlines()
    new = [" " * indent + line if line else "" for line in body.splitlines()]
    return "\n".join([*lines[:first], *new, *lines[last:]]) + "\n"


def body_of(source: str, function: str) -> str:
    """The lines under the function's docstring, not indented."""
    first, last, indent = _body_lines(source, function)
    return "\n".join(line[indent:] for line in source.splitlines()[first:last])


def _body_lines(source: str, function: str) -> tuple[int, int, int]:
    """First line of the body, the line after its last, both from 0, and its indentation.

    Comments between docstring and code belong to the body.
    """
    node: ast.AST = ast.parse(source)
    for name in function.split("."):
        node = next(
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, (ast.ClassDef, ast.FunctionDef)) and child.name == name
        )
    assert isinstance(node, ast.FunctionDef)
    docstring = node.body[0]
    assert docstring.end_lineno is not None
    assert node.end_lineno is not None
    return docstring.end_lineno, node.end_lineno, docstring.col_offset
