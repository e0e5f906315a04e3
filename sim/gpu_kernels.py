# mypy: ignore-errors
"""The one kernel that MuJoCo Warp does not have; imported where Warp is known to be installed."""

import warp as wp


@wp.kernel(enable_backward=False)
def clear_columns(columns: wp.array[int], values: wp.array2d[float]):
    """Set the entries ``columns`` (c,) of every row of ``values`` (n, k) to zero; one thread each, (n, c)."""
    row, c = wp.tid()
    values[row, columns[c]] = 0.0
