"""Each picture is encoded once, results do not depend on where they are stored, runs resume."""

import gc

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lift3d.networks.device import _cpu_has_bfloat16, choose_device, choose_precision  # noqa: E402
from lift3d.networks.mast3r.inference import (  # noqa: E402
    PairPrediction,
    PredictorConfig,
    Wanted,
)
from lift3d.networks.mast3r.network import Mast3r  # noqa: E402
from lift3d.networks.mast3r.pairstore import PairStore  # noqa: E402
from lift3d.networks.mast3r.preprocess import Prepared  # noqa: E402
from lift3d.networks.mast3r.sizes import NetworkConfig  # noqa: E402
from lift3d.scene.errors import InputError  # noqa: E402

TINY = NetworkConfig(16, 1, 2, 8, 4, 1, (4, 4, 4, 4), 8, 4, 3)
SHAPES = [(32, 48), (32, 48), (48, 32), (32, 48), (48, 32)]
PAIRS = [(0, 1), (1, 0), (0, 2), (2, 0), (3, 0), (2, 4), (3, 1)]


@pytest.fixture(autouse=True)
def one_thread():
    """One thread: networks this small are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures():
    rng = np.random.default_rng(0)
    return [Prepared(rng.integers(0, 256, (*s, 3), dtype=np.uint8), np.eye(3)) for s in SHAPES]


class Counting(Mast3r):
    """Counts encoded pictures and decoded pairs, and can run out of memory."""

    def __init__(self):
        super().__init__(TINY)
        self.encoded = self.decoded = 0
        self.at_most = 100

    def encode(self, images):
        self.encoded += len(images)
        return super().encode(images)

    def decode(self, first, second):
        if len(first.tokens) > self.at_most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.decoded += len(first.tokens)
        return super().decode(first, second)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Counting().eval().requires_grad_(False)


def predictor(model, **options):
    return PredictorConfig(**{"device": "cpu", "precision": "float32", **options}).build(model)


def same(ours, theirs, exact=False):
    for a, b in ((ours.first, theirs.first), (ours.second, theirs.second)):
        for name in ("pts3d", "conf", "desc", "desc_conf"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None)
            if x is not None:
                tolerance = 0 if exact else 1e-5
                np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def pair_by_pair(model, images, pairs):
    """The plain way: both pictures of each pair encoded anew."""
    results = {}
    with torch.inference_mode():
        for i, j in pairs:
            first, second = (model.encode(torch.from_numpy(images[k].pixels)[None]) for k in (i, j))
            arrays = {}
            for view, decoded in enumerate(model.decode(first, second), 1):
                head = model.head(view)
                outputs = (*head.points(decoded), *head.descriptors(decoded))
                for name, tensor in zip(
                    ("pts3d", "conf", "desc", "desc_conf"), outputs, strict=True
                ):
                    arrays[f"{name}_{view}"] = tensor[0].numpy()
            results[i, j] = PairPrediction.from_arrays(arrays)
    return results


@pytest.mark.parametrize(("batch", "branch_bytes"), [(1, 2**30), (3, 20_000), (50, 0), (50, 2**30)])
def test_encoding_once_in_batches_equals_pair_by_pair(model, batch, branch_bytes):
    images = pictures()
    expected = pair_by_pair(model, images, PAIRS)
    model.encoded = 0
    results = dict(predictor(model, batch=batch, branch_bytes=branch_bytes).predict(images, PAIRS))
    assert model.encoded == 5
    assert results.keys() == expected.keys()
    for pair in PAIRS:
        assert results[pair].first.conf.shape == SHAPES[pair[0]]
        assert results[pair].second.conf.shape == SHAPES[pair[1]]
        same(results[pair], expected[pair])


def test_only_pictures_in_pairs_are_encoded_and_progress_counts_them(model):
    heard = []
    pairs = [(0, 2), (2, 0), (0, 2)]
    results = list(
        predictor(model).predict(pictures(), pairs, encoded=lambda *done: heard.append(done))
    )
    assert [pair for pair, _ in results] == [(0, 2), (2, 0)]
    assert (model.encoded, model.decoded) == (2, 2)
    assert heard == [(1, 2), (2, 2)]


def test_a_head_whose_outputs_are_not_wanted_does_not_run(model, monkeypatch):
    full = dict(predictor(model).predict(pictures(), [(0, 1)]))[0, 1]
    monkeypatch.setattr(model.downstream_head1, "dpt", None)
    monkeypatch.setattr(model.downstream_head2, "head_local_features", None)
    wanted = Wanted(points=(2,), descriptors=(1,))
    part = dict(predictor(model).predict(pictures(), [(0, 1)], wanted))[0, 1]
    assert part.first.pts3d is None
    assert part.second.desc is None
    np.testing.assert_array_equal(part.first.desc, full.first.desc)
    np.testing.assert_array_equal(part.second.pts3d, full.second.pts3d)


def test_storing_everything_on_disk_gives_the_same(model, tmp_path):
    images = pictures()
    plain = dict(predictor(model).predict(images, PAIRS))
    store = PairStore(memory_bytes=0)
    spilled = dict(predictor(model, encodings_bytes=0).predict(images, PAIRS, store=store))
    for pair in PAIRS:
        same(spilled[pair], plain[pair], exact=True)
        same(PairPrediction.from_arrays(store.get(pair)), plain[pair], exact=True)


def test_a_stopped_run_resumes_where_it_was(model, tmp_path):
    images, pairs = pictures(), PAIRS[:6]
    run = predictor(model).predict(images, pairs, store=PairStore(tmp_path / "pairs"))
    first = dict(next(run) for _ in range(4))
    run.close()
    assert model.decoded == 4

    model.encoded = model.decoded = 0
    store = PairStore(tmp_path / "pairs")
    results = dict(predictor(model).predict(images, pairs, store=store))
    assert results.keys() == set(pairs)
    assert model.decoded == 2
    for pair in first:
        same(results[pair], first[pair], exact=True)

    model.encoded = model.decoded = 0
    assert len(list(predictor(model).predict(images, pairs, store=store))) == 6
    assert (model.encoded, model.decoded) == (0, 0)


def test_a_stored_pair_without_what_is_wanted_is_computed_again(model, tmp_path):
    images, store = pictures(), PairStore(tmp_path)
    list(predictor(model).predict(images, [(0, 1)], Wanted(points=()), store))
    full = dict(predictor(model).predict(images, [(0, 1)], store=store))
    assert model.decoded == 2
    assert full[0, 1].first.pts3d is not None


def test_batches_shrink_when_memory_runs_out(model):
    images, pairs = pictures(), [(0, 1), (1, 0), (0, 3), (3, 0), (1, 3)]
    expected = dict(predictor(model, batch=1).predict(images, pairs))
    model.at_most, model.decoded = 2, 0
    shrinking = predictor(model, batch=8)
    results = dict(shrinking.predict(images, pairs))
    assert shrinking.batch == 2
    assert model.decoded == len(pairs)
    for pair in pairs:
        same(results[pair], expected[pair])

    model.at_most = 0
    with pytest.raises(InputError, match=r"out of memory decoding pairs one at a time.*size 224"):
        list(shrinking.predict(images, pairs))


def test_other_errors_are_not_taken_for_lack_of_memory(model, monkeypatch):
    def broken(first, second):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(model, "decode", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(predictor(model).predict(pictures(), [(0, 1)]))


def test_predicting_leaves_gradients_on_for_others(model):
    for _ in predictor(model).predict(pictures(), [(0, 1)]):
        assert not torch.is_inference_mode_enabled()


def test_half_precision_is_near(model):
    images = pictures()
    exact = dict(predictor(model).predict(images, PAIRS))
    for precision in ("bfloat16", "float16"):
        near = dict(predictor(model, precision=precision).predict(images, PAIRS))
        for pair in PAIRS:
            assert near[pair].second.pts3d.dtype == np.float32
            np.testing.assert_allclose(near[pair].second.desc, exact[pair].second.desc, atol=0.15)


def test_precision_and_device_are_chosen_by_the_hardware(tmp_path):
    cpu = torch.device("cpu")
    assert choose_precision("float16", cpu) == torch.float16
    assert choose_precision("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(InputError, match="precision is 'half'"):
        choose_precision("half", cpu)
    assert choose_device("cpu") == cpu
    for name in ("cuda:99", "abacus"):
        with pytest.raises(InputError, match="use 'auto', 'cpu' or a GPU"):
            choose_device(name)
    with pytest.raises(InputError, match="batch is 0"):
        PredictorConfig(batch=0).build(Mast3r(TINY))
    info = tmp_path / "cpuinfo"
    assert not _cpu_has_bfloat16(info)
    info.write_text("flags : sse2 avx512f avx512_bf16\n")
    assert _cpu_has_bfloat16(info)
    info.write_text("flags : sse2 avx512f\n")
    assert not _cpu_has_bfloat16(info)


# --- the store


def test_a_store_keeps_its_budget_and_writes_the_rest_to_disk():
    store = PairStore(memory_bytes=100)
    for i in range(5):
        store.put((i, i + 1), {"a": np.full(10, i, np.float32)})
    assert len(store) == len(list(store)) == 5
    assert [store.get((i, i + 1))["a"][0] for i in range(5)] == [0, 1, 2, 3, 4]
    folder = store._folder
    assert sorted(p.name for p in folder.iterdir()) == ["2-3", "3-4", "4-5"]
    store.put((2, 3), {"a": np.zeros(1), "b": np.ones(1)})
    assert store.has((2, 3), ["a", "b"])
    assert store.get((2, 3), "b")["b"] == 1
    assert not store.has((9, 9), [])
    del store
    gc.collect()
    assert not folder.exists()


def test_a_folder_of_other_settings_begins_anew_and_keeps_what_is_not_its_own(tmp_path):
    (tmp_path / "notes").mkdir()
    PairStore(tmp_path, identity="first").put((0, 1), {"a": np.zeros(1)})
    assert (0, 1) in PairStore(tmp_path, identity="first")
    assert len(PairStore(tmp_path, identity="second")) == 0
    assert not (tmp_path / "0-1").exists()
    assert (tmp_path / "notes").exists()


def test_half_written_entries_do_not_count_and_damaged_ones_say_so(tmp_path):
    PairStore(tmp_path).put((0, 1), {"a": np.zeros(100)})
    (tmp_path / "0-1").rename(tmp_path / ".0-1.part")
    assert (0, 1) not in PairStore(tmp_path)
    PairStore(tmp_path).put((0, 1), {"a": np.zeros(100)})
    file = tmp_path / "0-1" / "a.npy"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(InputError, match=r"a\.npy cannot be read.*remove .*0-1 and run again"):
        PairStore(tmp_path).get((0, 1))
