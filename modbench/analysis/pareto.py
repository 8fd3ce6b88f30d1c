"""Points of two numbers, both better when smaller -> those that no other one beats. Pure."""

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that are not dominated, by ascending first number.

    A point is dominated if another is at least as good in both numbers and better in one; equal points are both on the front.
    """
    order = sorted(range(len(points)), key=lambda index: points[index])
    found: list[int] = []
    for index in order:
        if not found or points[index][1] < points[found[-1]][1] or points[index] == points[found[-1]]:
            found.append(index)
    return found
