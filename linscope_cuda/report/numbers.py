"""A tour's numbers for programs."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..study.euclidean import norm
from ..study.tour import METHOD, SEED, TOLERANCE, Tour


def summary(tour: Tour) -> dict[str, Any]:
    """The page's numbers as JSON's types; indices are (channel, row, column), from 0.

    summary(found)["equation"]["relative_error"]
    """
    return {
        "network": tour.network,
        "photo": tour.photo,
        "source": tour.source,
        "policy": tour.policy,
        "input_shape": list(tour.x0.shape),
        "output_shape": list(tour.y.shape),
        "shape": list(tour.shape),
        "equation": {
            "relative_error": tour.relative_error,
            "deviation_from_unpatched": tour.deviation,
            "norm_y": norm(tour.y),
            "norm_filtered": norm(tour.filtered),
            "norm_residual": norm(tour.residual),
        },
        "residual": {
            "of_output": tour.residual_ratio,
            "of_parts": tour.residual_share,
            "advice": dataclasses.asdict(tour.advice) if tour.advice else None,
            "of_top_score": tour.top[0].residual / tour.top[0].score if tour.top else None,
        },
        "top": [dataclasses.asdict(score) for score in tour.top],
        "row": {"output": list(tour.row.probe), "norm": norm(tour.row.values)},
        "column": {"input": list(tour.column.probe), "norm": norm(tour.column.values)},
        "svd": {
            "sigma": tour.svd.S.tolist(),
            "error": tour.svd.errors.tolist(),
            "proven": tour.svd.proven.tolist(),
            "method": METHOD,
            "tolerance": TOLERANCE,
            "passes": tour.svd.passes,
            "converged": tour.svd.converged,
            "asked": tour.svd.asked,
            "interrupted": tour.svd.interrupted,
        },
        "bytes": {
            "tape": tour.tape_bytes,
            "relu_activations": tour.activation_bytes,
            "dense_filter": tour.dense_bytes,
        },
        "passes": tour.passes,
        "seconds": tour.seconds,
        "seed": SEED,
        "dtype": tour.dtype,
        "device": tour.device,
    }
