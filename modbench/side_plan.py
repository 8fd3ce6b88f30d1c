"""The order of launches that are measured side by side. Pure. In: the plans of both sides for one scenario. Out: specs in order.

One method at a time, four launches in a row, so that a pair's two launches are neighbours in time: A B B A in even quads,
B A A B in odd ones. A linear drift cancels within a quad, and what a place in it does to a launch cancels over two.
`position` counts from 0 within the four.
"""

from modbench.plan import Pair, Plan, RunSpec

BASE, CANDIDATE = 0, 1
SIDE_NAMES = ("base", "candidate")
_EVEN, _ODD = (BASE, CANDIDATE, CANDIDATE, BASE), (CANDIDATE, BASE, BASE, CANDIDATE)


def side_quad(plans: tuple[Plan, Plan], cell_index: int, method: str, quad: int) -> list[tuple[int, RunSpec]]:
    """(side, launch) of one method's quad at one cell, in the order to run them."""
    launches = []
    for position, side in enumerate(_ODD if quad % 2 else _EVEN):
        cell = plans[side].cells[cell_index]
        planned = next(planned for planned in cell.methods if planned.method == method)
        launches.append((side, plans[side].spec(cell, planned, Pair(quad=quad, position=position))))
    return launches
