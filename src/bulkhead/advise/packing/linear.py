"""HiGHS as it is used here: silent, on one core, the same each time."""

from __future__ import annotations

import highspy

PRIMAL = 4
"""After more columns the last point is feasible still; after other demands it is quicker than the dual method, too."""


class _Silent(highspy.Highs):
    """Without callbacks, which would be asked at each pivot; to set them up prints a line, too."""

    def enableCallbacks(self) -> None:  # noqa: N802
        self.setOptionValue("output_flag", False)


def quiet() -> highspy.Highs:
    """An empty model for the simplex method, which goes on from where it was when the model is changed."""
    model: highspy.Highs = _Silent()  # type: ignore[no-untyped-call]
    for name, value in (
        ("threads", 1),
        ("parallel", "off"),
        ("solver", "simplex"),
        ("presolve", "off"),
        ("simplex_strategy", PRIMAL),
        ("random_seed", 0),
    ):
        model.setOptionValue(name, value)
    return model
