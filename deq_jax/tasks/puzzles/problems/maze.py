"""Perfect mazes: rooms and the doors between them form a tree, so that one way alone leads from start to end.

A maze is a square of tiles. Rooms lie at even rows and columns, doors or walls between them; outside there is wall.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np

from deq_jax.tasks.puzzles.problems.problem import Grid, Kind, Problem
from deq_jax.training.errors import UserError

WALL, FREE, START, END = range(4)
TILES, WAY = "#.SE", "*"
"""How tiles are written, and those of an answer's way."""
LARGEST = 513

Tile = tuple[int, int]


def mazes(side: int) -> Kind:
    """Mazes of ``side`` × ``side`` tiles. The answer is 1 on the way from start to end, both included.

    A walk in depth carves them, which makes long winding ways. Start and end are any two rooms, and in half of the
    mazes as far from each other as the start allows.

    Raises:
        UserError: there are no such mazes.

    Source: Schwarzschild et al., "Datasets for studying generalization from easy to hard examples", 2021.
    """
    if side % 2 == 0 or not 3 <= side <= LARGEST:
        raise UserError(
            f"a maze of {side} tiles a side cannot be generated: rooms and the walls between them take an odd number, "
            f"from 3 to {LARGEST}."
        )

    def draw(rng: np.random.Generator) -> Problem:
        clues, parents = _carved(rng, (side + 1) // 2)
        start, end = (list(parents)[i] for i in rng.choice(len(parents), 2, replace=False))
        if rng.integers(2):
            end = _farthest(clues, start)
        clues[start], clues[end] = START, END
        return Problem(clues, _way(clues, _joined(_to_root(parents, start), _to_root(parents, end))))

    return Kind(
        "mazes", f"{side} tiles a side", characters=TILES, classes=2, side=None, draw=draw, solve=solve, write=write
    )


def solve(clues: Grid) -> Grid:
    """The one way from start to end.

    Raises:
        UserError: the clues are no maze, no way leads to the end, or several do.
    """
    clues = np.asarray(clues)
    if clues.ndim != 2 or not np.isin(clues, (WALL, FREE, START, END)).all():
        raise UserError("the clues are no maze; expected tiles [height, width]: 0 wall, 1 free, 2 start, 3 end.")
    counts = [int((clues == symbol).sum()) for symbol in (START, END)]
    if counts != [1, 1]:
        raise UserError(f"the maze has {counts[0]} starts and {counts[1]} ends; expected one of each.")
    start, end = ((int(row), int(column)) for (row, column) in (np.argwhere(clues == s)[0] for s in (START, END)))
    way = _shortest(clues, start, end)
    if way is None:
        raise UserError("the maze has no solution: no way leads from start to end.")
    if _has_detour(clues, way):
        raise UserError("the maze has several solutions: more than one way leads from start to end.")
    return _way(clues, way)


def write(clues: Grid, answer: Grid) -> list[str]:
    """The maze with the answer's way in it, where it goes over free tiles."""
    tiles = np.array(list(TILES))[np.asarray(clues)]
    marked = np.where((np.asarray(answer) == 1) & (np.asarray(clues) == FREE), WAY, tiles)
    return ["".join(row) for row in marked]


def _carved(rng: np.random.Generator, rooms: int) -> tuple[np.ndarray, dict[Tile, Tile | None]]:
    """Tiles without start and end, and of every room the one that it was entered from."""
    clues = np.zeros((2 * rooms - 1, 2 * rooms - 1), np.int8)
    first = tuple(2 * int(i) for i in rng.integers(rooms, size=2))
    parents: dict[Tile, Tile | None] = {(first[0], first[1]): None}
    walk = list(parents)
    clues[first] = FREE
    while walk:
        row, column = walk[-1]
        new = [room for room in _around(clues, (row, column), 2) if room not in parents]
        if not new:
            walk.pop()
            continue
        room = new[int(rng.integers(len(new)))]
        clues[room] = clues[(row + room[0]) // 2, (column + room[1]) // 2] = FREE
        parents[room] = row, column
        walk.append(room)
    return clues, parents


def _to_root(parents: dict[Tile, Tile | None], room: Tile) -> list[Tile]:
    way = [room]
    while (parent := parents[way[-1]]) is not None:
        way += [((way[-1][0] + parent[0]) // 2, (way[-1][1] + parent[1]) // 2), parent]
    return way


def _joined(one: list[Tile], other: list[Tile]) -> list[Tile]:
    """Two ways to the root, as one between their beginnings: what they share is left out, but for where they meet."""
    while len(one) > 1 and len(other) > 1 and one[-2] == other[-2]:
        one, other = one[:-1], other[:-1]
    return one + other[-2::-1]


def _way(clues: Grid, tiles: list[Tile]) -> Grid:
    answer = np.zeros(clues.shape, np.int8)
    answer[tuple(np.transpose(tiles))] = 1
    return answer


def _around(clues: np.ndarray, tile: Tile, distance: int = 1) -> Iterator[Tile]:
    height, width = clues.shape
    for down, right in ((0, distance), (distance, 0), (0, -distance), (-distance, 0)):
        row, column = tile[0] + down, tile[1] + right
        if 0 <= row < height and 0 <= column < width:
            yield row, column


def _before(clues: np.ndarray, start: Tile) -> dict[Tile, Tile | None]:
    """Of every tile that can be come to the one before it on a shortest way, the farthest last."""
    before: dict[Tile, Tile | None] = {start: None}
    queue = deque([start])
    while queue:
        tile = queue.popleft()
        for other in _around(clues, tile):
            if clues[other] != WALL and other not in before:
                before[other] = tile
                queue.append(other)
    return before


def _farthest(clues: np.ndarray, start: Tile) -> Tile:
    return list(_before(clues, start))[-1]


def _shortest(clues: np.ndarray, start: Tile, end: Tile) -> list[Tile] | None:
    """A shortest way; None where there is none."""
    before = _before(clues, start)
    if end not in before:
        return None
    way = [end]
    while (tile_before := before[way[-1]]) is not None:
        way.append(tile_before)
    return way


def _has_detour(clues: np.ndarray, way: list[Tile]) -> bool:
    """Whether from a tile of the way another one can be come to beside the way: just then there is a second way."""
    places = {tile: place for place, tile in enumerate(way)}
    seen: set[Tile] = set()
    for tile in way:
        walk = [tile]
        while walk:
            here = walk.pop()
            for other in _around(clues, here):
                if clues[other] == WALL or other in seen or other == tile:
                    continue
                if other not in places:
                    seen.add(other)
                    walk.append(other)
                elif here != tile or abs(places[other] - places[tile]) > 1:
                    return True
    return False
