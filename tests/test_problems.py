import numpy as np
import pytest

from deq_jax.tasks.puzzles.problems import Problems, boards, maze, mazes, prefix_sums, read, sudoku
from deq_jax.training.errors import UserError

KINDS = {
    "strings": lambda: prefix_sums(32),
    "long strings": lambda: prefix_sums(512),
    "mazes": lambda: mazes(9),
    "large mazes": lambda: mazes(33),
    "4×4": lambda: boards(4, 5),
    "6×6": lambda: boards(6, 10),
    "9×9": lambda: boards(9, 30),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_problem_has_one_answer_and_it_is_the_one_given(name):
    kind, rng = KINDS[name](), np.random.default_rng(0)
    for _ in range(5):
        problem = kind.draw(rng)
        assert problem.clues.shape == problem.answer.shape
        assert problem.clues.min() >= 0
        assert problem.clues.max() < kind.symbols
        assert problem.answer.max() < kind.classes
        np.testing.assert_array_equal(kind.solve(problem.clues), problem.answer)


def test_a_place_says_whether_the_ones_up_to_it_are_odd():
    assert prefix_sums(6).solve(np.array([[1, 0, 1, 1, 0, 1]])).tolist() == [[1, 1, 0, 1, 1, 0]]


def test_a_maze_is_a_tree_of_rooms():
    clues = mazes(13).draw(np.random.default_rng(1)).clues
    is_free = clues != maze.WALL
    assert is_free[::2, ::2].all()
    assert not is_free[1::2, 1::2].any()
    doors = is_free.sum() - 7 * 7
    assert doors == 7 * 7 - 1  # and all are joined, since every two rooms have a way between them:
    start = np.argwhere(clues == maze.START)[0]
    for room in np.argwhere(clues[::2, ::2] == maze.FREE)[::5] * 2:
        moved = np.where(is_free, maze.FREE, maze.WALL)
        moved[tuple(start)], moved[tuple(room)] = maze.START, maze.END
        assert maze.solve(moved)[tuple(room)] == 1


def test_the_way_is_one_and_leads_from_start_to_end():
    problem = mazes(33).draw(np.random.default_rng(2))
    neighbours = sum(np.roll(np.pad(problem.answer, 1), by, axis)[1:-1, 1:-1] for by in (1, -1) for axis in (0, 1))
    is_end = np.isin(problem.clues, (maze.START, maze.END))
    assert (problem.answer[is_end] == 1).all()
    on_way = problem.answer == 1
    assert (neighbours[on_way & is_end] == 1).all()
    assert (neighbours[on_way & ~is_end] == 2).all()
    assert not (on_way & (problem.clues == maze.WALL)).any()


def test_boards_have_the_givens_they_should_and_keep_the_rules():
    rng = np.random.default_rng(3)
    for side, givens, (rows, columns) in ((4, 4, (2, 2)), (6, 9, (2, 3)), (9, 24, (3, 3))):
        clues, answer = boards(side, givens).draw(rng)
        assert (clues > 0).sum() == givens
        assert (clues[clues > 0] - 1 == answer[clues > 0]).all()
        boxes = answer.reshape(side // rows, rows, side // columns, columns).swapaxes(1, 2).reshape(side, side)
        for units in (answer, answer.T, boxes):
            assert (np.sort(units, axis=1) == np.arange(side)).all()


@pytest.mark.parametrize(
    ("clues", "said"),
    [
        ([[2, 1, 1], [0, 0, 1], [3, 0, 1]], "no solution: no way leads"),
        ([[2, 1, 1], [1, 0, 1], [3, 1, 1]], "several solutions: more than one way"),
        ([[2, 1, 1], [1, 0, 1], [2, 1, 3]], "2 starts and 1 ends"),
        ([[2, 1, 4]], "no maze"),
    ],
)
def test_a_maze_without_or_with_several_solutions_is_named(clues, said):
    with pytest.raises(UserError, match=said):
        maze.solve(np.array(clues))


def test_a_board_without_or_with_several_solutions_is_named():
    with pytest.raises(UserError, match="several solutions"):
        sudoku.solve(np.zeros((4, 4), int))
    board = np.zeros((4, 4), int)
    board[0] = 1, 2, 3, 0
    board[1, 3] = 4  # what the first row lacks
    with pytest.raises(UserError, match="no solution"):
        sudoku.solve(board)
    board = np.zeros((4, 4), int)
    board[0, :2] = 1
    with pytest.raises(UserError, match="no solution"):
        sudoku.solve(board)
    with pytest.raises(UserError, match=r"shape \[5, 5\] are no Sudoku"):
        sudoku.solve(np.zeros((5, 5), int))
    with pytest.raises(UserError, match="no string of bits"):
        prefix_sums(4).solve(np.array([[0, 1, 2, 0]]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: prefix_sums(1), "a string of 1 bits cannot be generated"),
        (lambda: mazes(10), "rooms and the walls between them take an odd number"),
        (lambda: mazes(1), "from 3 to 513"),
        (lambda: boards(5, 10), "5×5 cannot be generated; there are 4, 6, 9"),
        (lambda: boards(9, 16), "with fewer than 17 there are always several solutions"),
        (lambda: boards(9, 20), "fewer than 24 are too rare"),
        (lambda: boards(4, 16), "one at least is to be found"),
        (lambda: Problems(prefix_sums(2), "test", 1, 0), "too few to train on some and to test on others"),
    ],
)
def test_a_difficulty_that_there_is_not_is_refused_with_the_reason(make, said):
    with pytest.raises(UserError, match=said):
        make()


@pytest.mark.parametrize("name", ["strings", "mazes", "6×6"])
def test_a_problem_is_a_matter_of_the_seed_and_its_number(name):
    source = Problems(KINDS[name](), "train", 100, seed=5)
    batch = source[np.array([7, 3, 1_000_000])]
    assert len(source) == 100
    assert batch.clues.dtype == batch.answer.dtype == np.int8
    again = Problems(KINDS[name](), "train", 10, seed=5)[np.array([1_000_000, 7])]
    np.testing.assert_array_equal(again.clues, batch.clues[[2, 0]])
    np.testing.assert_array_equal(again.answer, batch.answer[[2, 0]])
    other = Problems(KINDS[name](), "train", 100, seed=6)[np.array([7])]
    assert (other.clues != batch.clues[:1]).any()


def test_no_problem_is_for_training_and_for_testing():
    kind = prefix_sums(8)  # of 256 strings
    train, test = (
        {clues.tobytes() for clues in Problems(kind, split, 600, seed)[:].clues}
        for split, seed in (("train", 0), ("test", 1))
    )
    assert not train & test
    assert len(train | test) > 220


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (mazes(3), "S..\n##.\nE..\n\nS..\n...\nE..\n", "problem 2: the maze has several solutions"),
        (mazes(3), "S..\n##.\nE.#\n", "problem 1: the maze has no solution"),
        (mazes(3), "S.x\n##.\nE..\n", "problem 1 holds x; mazes are written with # . S E"),
        (mazes(3), "S..\n##\nE..\n", "problem 1 has lines of different lengths"),
        (boards(4, 6), "....\n....\n....\n....\n", "problem 1: the board has several solutions"),
        (boards(4, 6), "12.\n...\n3..\n", "no Sudoku"),
        (prefix_sums(6), "0101\n\n\n01\n", "problem 2 is 1 × 2, the first one 1 × 4; put them into two files"),
        (prefix_sums(6), "\n", "holds no problem; expected strings"),
    ],
)
def test_problems_of_ones_own_that_are_none_are_named(tmp_path, kind, text, said):
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read(path, kind)


def test_problems_of_ones_own_are_read_and_solved(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("S#.\n.#.\n..E\n \nS..\n##.\nE..\n\n")
    clues, answer = read(path, mazes(9))
    assert clues[0].tolist() == [[2, 0, 1], [1, 0, 1], [1, 1, 3]]
    assert answer[1].tolist() == [[1, 1, 1], [0, 0, 1], [1, 1, 1]]
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "missing", mazes(9))
