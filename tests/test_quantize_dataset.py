"""Jets on disk, in the public dataset's layout."""

import numpy as np
import pandas as pd
import pytest

from quantize import dataset


def sample(count=7, seed=3):
    rng = np.random.default_rng(seed)
    constituents = rng.standard_normal((count, 200, 4)).astype(np.float32)
    truth = rng.standard_normal((count, 4)).astype(np.float32)
    return dataset.Jets(constituents, rng.integers(0, 2, count), truth)


def test_jets_survive_the_disk(tmp_path):
    jets = sample()
    dataset.write(tmp_path / "val.h5", jets, "val")
    back = dataset.read(tmp_path / "val.h5")
    for name in ("constituents", "is_top", "truth"):
        assert (getattr(back, name) == getattr(jets, name)).all()
    assert len(dataset.read(tmp_path / "val.h5", limit=3)) == 3


def test_the_file_has_the_public_layout(tmp_path):
    jets = sample()
    dataset.write(tmp_path / "test.h5", jets, "test")
    frame = pd.read_hdf(tmp_path / "test.h5", key="table")
    assert list(frame.columns[:5]) == ["E_0", "PX_0", "PY_0", "PZ_0", "E_1"]
    assert list(frame.columns[796:]) == [
        *("E_199", "PX_199", "PY_199", "PZ_199"),
        *("truthE", "truthPX", "truthPY", "truthPZ"),
        *("ttv", "is_signal_new"),
    ]
    assert (frame["ttv"] == 1).all()
    assert (frame["PY_17"].to_numpy() == jets.constituents[:, 17, 2]).all()
    assert list(pd.read_hdf(tmp_path / "test.h5", key="table", start=2, stop=4).index) == [2, 3]


def test_columns_are_found_by_name_not_by_place(tmp_path):
    jets = sample()
    dataset.write(tmp_path / "ours.h5", jets, "train")
    frame = pd.read_hdf(tmp_path / "ours.h5", key="table")
    frame[frame.columns[::-1]].to_hdf(tmp_path / "turned.h5", key="table", format="table")
    assert (dataset.read(tmp_path / "turned.h5").constituents == jets.constituents).all()


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m quantize jets"):
        dataset.read(tmp_path / "train.h5")


def test_another_layout_is_refused(tmp_path):
    pd.DataFrame({"x": [1.0]}).to_hdf(tmp_path / "a.h5", key="other", format="table")
    pd.DataFrame({"x": [1.0]}).to_hdf(tmp_path / "b.h5", key="table", format="table")
    (tmp_path / "c.h5").write_text("not HDF5")
    for name, complaint in (("a", "no pandas table"), ("b", "lacks the columns"), ("c", "not a readable HDF5")):
        with pytest.raises(ValueError, match=complaint):
            dataset.read(tmp_path / f"{name}.h5")


def stored_frame(path, jets):
    dataset.write(path, jets, "train")
    return pd.read_hdf(path, key="table")


def test_a_file_cut_short_is_named(tmp_path):
    path = tmp_path / "train.h5"
    dataset.write(path, sample(count=400), "train")
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"train\.h5 is (not a readable HDF5 file|damaged).*again") as caught:
            dataset.read(path)
        assert "\n" not in str(caught.value)


def test_missing_columns_are_named(tmp_path):
    frame = stored_frame(tmp_path / "train.h5", sample())
    frame.drop(columns=["PY_3", "truthE"]).to_hdf(tmp_path / "less.h5", key="table", format="table")
    with pytest.raises(ValueError, match="lacks the columns PY_3, truthE:"):
        dataset.read(tmp_path / "less.h5")


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("PX_7", np.nan, "row 4 has a NaN or an infinity among its momenta"),
        ("truthE", np.inf, "row 4 has a NaN or an infinity"),
        ("is_signal_new", 3, "row 4 has a label is_signal_new other than 0 and 1"),
    ],
)
def test_a_bad_number_is_named_with_its_row(tmp_path, column, value, complaint):
    frame = stored_frame(tmp_path / "train.h5", sample())
    frame.loc[4, column] = value
    frame.to_hdf(tmp_path / "bad.h5", key="table", format="table")
    with pytest.raises(ValueError, match=complaint):
        dataset.read(tmp_path / "bad.h5")


def test_empty_jets_are_named_with_the_first_row(tmp_path):
    jets = sample()
    jets.constituents[[2, 5]] = 0
    dataset.write(tmp_path / "train.h5", jets, "train")
    with pytest.raises(ValueError, match=r"row 2 has no constituent \(as have 1 others\); remove"):
        dataset.read(tmp_path / "train.h5")


def test_appended_blocks_make_the_file_that_one_write_makes(tmp_path):
    jets = sample(count=9)
    dataset.write(tmp_path / "one.h5", jets, "val")
    with dataset.writing(tmp_path / "two.h5", "val") as file:
        for start in (0, 4, 6):
            file.append(jets[slice(start, {0: 4, 4: 6, 6: 9}[start])])
    one, two = (pd.read_hdf(tmp_path / f"{name}.h5", key="table") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two)
    whole = dataset.Digest()
    whole.add(jets)
    assert whole.hexadecimal == file.digest.hexadecimal


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), dataset.written_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
