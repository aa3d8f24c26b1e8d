"""map_batches: order, modes and threads of batches that are computed at once."""

from collections.abc import Iterator

import pytest
import torch

from maediff.nn.batches import apply_in_batches, map_batches

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_batches(threads: int) -> None:
    def compute(n: int) -> int:
        torch.rand(300 * (9 - n), 300).sum()  # the first batch takes longest
        return n

    assert list(map_batches(compute, iter(range(9)), CPU)) == list(range(9))


def test_batches_have_one_thread_each_and_the_caller_keeps_its_threads(threads: int) -> None:
    used = list(map_batches(lambda _: torch.get_num_threads(), range(6), CPU))
    assert used == [1] * 6
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("precision", [torch.bfloat16, None])
def test_modes_of_the_caller_hold(
    threads: int, inference: bool, precision: torch.dtype | None
) -> None:
    layer = torch.nn.Linear(4, 4)
    with (
        torch.inference_mode(inference),
        torch.autocast("cpu", precision, enabled=precision is not None),
    ):
        results = list(map_batches(layer, [torch.ones(2, 4)] * 4, CPU))
    assert [r.requires_grad for r in results] == [not inference] * 4
    assert [r.dtype for r in results] == [precision or torch.float32] * 4


def test_a_failing_batch_ends_the_others(threads: int) -> None:
    computed = []

    def compute(n: int) -> int:
        computed.append(n)
        if n == 0:
            raise RuntimeError("no memory")
        torch.rand(1000, 1000).sum()
        return n

    with pytest.raises(RuntimeError, match="no memory"):
        list(map_batches(compute, range(1000), CPU))
    assert len(computed) < 1000
    assert torch.get_num_threads() == threads


def test_slices_through_a_network_equal_all_at_once(threads: int) -> None:
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    x0 = torch.rand(7, 1, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(apply_in_batches(network, x0, 3), network(x0))
