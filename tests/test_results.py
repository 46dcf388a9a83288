"""Result files, written whole or not at all; where results come from and what they need."""

import datetime
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from torch import nn

from dipkernels import images, plotting
from dipkernels.base import files
from dipkernels.base import memory as of_machine
from dipkernels.base import origin as provenance
from dipkernels.errors import (
    DeviceError,
    DipkernelsError,
    DivergenceError,
    ImageError,
    InvalidInputError,
    MemoryLimitError,
    OutputError,
    UnknownNameError,
)
from dipkernels.networks import ImagePrior
from dipkernels.priors import memory
from dipkernels.priors.prior import describe_prior
from dipkernels.storage import netcdf as results
from dipkernels.storage import save_checkpoint


def make_dataset(seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {
            "loss": ("iteration", rng.random(7), {"units": "1"}),
            "image": (("channel", "y", "x"), rng.random((2, 3, 5), dtype=np.float32)),
            "mask": (("y", "x"), rng.random((3, 5)) > 0.5),
        },
        {"iteration": np.arange(7), "region": ["whole", "hole"]},
        {"prior": "skip", "parameters": 12, "learning_rate": 0.01, "peak": np.inf},
    )


def test_datasets_survive_a_file(tmp_path: Path) -> None:
    dataset = make_dataset()
    results.save(dataset, tmp_path / "result.nc")
    loaded = results.load(str(tmp_path / "result.nc"))
    xr.testing.assert_identical(loaded, dataset)
    assert {name: v.dtype for name, v in loaded.items()} == {
        name: v.dtype for name, v in dataset.items()
    }
    (tmp_path / "result.nc").unlink()  # the file is closed and all of it in memory
    assert float(loaded.loss.sum()) == float(dataset.loss.sum())


def test_classic_files_hold_the_same_and_say_which_they_are(tmp_path: Path) -> None:
    dataset = make_dataset()
    results.save(dataset, tmp_path / "classic.nc", classic=True)
    assert (tmp_path / "classic.nc").read_bytes()[:3] == b"CDF"
    found = results.load(tmp_path / "classic.nc")
    xr.testing.assert_equal(found, dataset)
    assert found.image.dtype == np.float32
    assert {key: found.attrs[key] for key in dataset.attrs} == dataset.attrs
    # Whole numbers beyond 32 bits don't go into netCDF 3: netCDF 4 is taken without a word.
    large = dataset.assign(seed=("iteration", np.arange(7) + 2**40))
    results.save(large, tmp_path / "large.nc", classic=True)
    assert (tmp_path / "large.nc").read_bytes()[:4] == b"\x89HDF"
    xr.testing.assert_equal(results.load(tmp_path / "large.nc"), large)


def test_files_of_before_are_read_by_the_names_of_today(tmp_path: Path) -> None:
    ours = {"version_dipkernels": "0.1.0"}
    old = xr.Dataset({"freedom": ("seed", [3.5])}, attrs={"products": 40, **ours})
    for classic in (False, True):
        results.save(old, tmp_path / "old.nc", classic=classic)
        found = results.load(tmp_path / "old.nc")
        assert found.attrs == {"matvecs": 40, **ours}
        assert found["degrees_of_freedom"].values.tolist() == [3.5]
    both = xr.Dataset({"freedom": 1.0, "degrees_of_freedom": 2.0}, attrs={"products": 1, **ours})
    own = xr.Dataset({"products": ("shop", [1.0])}, attrs={"freedom": "of the press"})
    for kept, attrs in ((both, {"matvecs": 1, **ours}), (own, own.attrs)):
        results.save(kept, tmp_path / "kept.nc")
        assert results.load(tmp_path / "kept.nc").identical(kept.drop_attrs().assign_attrs(attrs))


def test_a_new_file_replaces_the_old(tmp_path: Path) -> None:
    for seed in (0, 1):
        results.save(make_dataset(seed), tmp_path / "result.nc")
    xr.testing.assert_identical(results.load(tmp_path / "result.nc"), make_dataset(1))
    assert [file.name for file in tmp_path.iterdir()] == ["result.nc"]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (OSError(28, "No space left on device"), OutputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (TypeError("no netCDF type"), TypeError),
    ],
)
def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    expected: type[BaseException],
) -> None:
    file = tmp_path / "result.nc"
    results.save(make_dataset(), file)
    before = file.read_bytes()

    def fail(path: Path, content: bytes) -> None:
        with path.open("wb") as half:
            half.write(b"half a file")
        raise failure

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(expected):
        results.save(make_dataset(1), file)
    assert file.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["result.nc"]


def test_attributes_that_no_file_can_hold_leave_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "result.nc"
    results.save(make_dataset(), file)
    before = file.read_bytes()
    with pytest.raises(TypeError, match="netCDF can't hold this dataset"):
        results.save(make_dataset(1).assign_attrs(settings={"a": 1}), file)
    assert file.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["result.nc"]


def test_texts_are_written_whole_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "table.md"
    results.write_text("first, größer\n", file)
    results.write_text("second, ∞\n", file)
    assert file.read_bytes().decode("utf-8") == "second, ∞\n"

    def fail(path: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match=r"can't write .*table\.md: .*Permission denied"):
        results.write_text("third\n", file)
    assert file.read_text(encoding="utf-8") == "second, ∞\n"
    assert [found.name for found in tmp_path.iterdir()] == ["table.md"]


def save_dataset(path: Path) -> None:
    results.save(make_dataset(), path)


def save_text(path: Path) -> None:
    results.write_text("text", path)


@pytest.mark.parametrize("write", [save_dataset, save_text])
def test_places_that_can_not_be_written(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for place in ("missing/result.nc", "file/result.nc", "folder"):
        with pytest.raises(OutputError, match="can't write"):
            write(tmp_path / place)
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["file", "folder"]


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.nc").write_text("no netCDF")
    (tmp_path / "empty.nc").write_text("")
    results.save(make_dataset(), tmp_path / "whole.nc")
    (tmp_path / "half.nc").write_bytes((tmp_path / "whole.nc").read_bytes()[:2000])
    for name in ("text.nc", "empty.nc", "half.nc", "missing.nc", "."):
        with pytest.raises(InvalidInputError, match="as netCDF"):
            results.load(tmp_path / name)


# --- Provenance and needs -------------------------------------------------------------------


def test_provenance_names_versions_device_and_time() -> None:
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    found = provenance.provenance("cpu")
    for package in ("dipkernels", "torch", "numpy", "scipy", "scikit-image", "xarray"):
        assert found[f"version_{package}"] == importlib.metadata.version(package)
    assert found["device"] == f"cpu ({platform.machine()})"
    assert found["threads"] == str(torch.get_num_threads())
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    created = datetime.datetime.fromisoformat(found["created"])
    assert before <= created <= datetime.datetime.now(datetime.UTC)


def test_provenance_does_without_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package-of-ours",))
    assert provenance.provenance("cpu")["version_no-such-package-of-ours"] == "unknown"


def test_provenance_of_each_device(device: str) -> None:
    found = provenance.provenance(device)
    assert found["device"].startswith(f"{device} (")


def test_description_of_a_prior() -> None:
    prior = ImagePrior(lambda: nn.Conv2d(2, 1, 3), torch.rand(1, 2, 5, 8), name="mine")
    assert describe_prior(prior) == {
        "prior": "mine",
        "parameters": 2 * 9 + 1,
        "dtype": "float32",
    }


@pytest.mark.slow
def test_peak_of_a_child_is_its_own() -> None:
    code = "from dipkernels.priors.memory import resident_bytes; print(resident_bytes())"
    command = [sys.executable, "-c", code]

    def child() -> int:
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    small = child()
    ballast = np.ones(2**27)  # 1 GiB, which would be the child's by its resource usage
    large = child()
    assert ballast.sum() == 2**27
    # Pages of libraries come and go: a tenth, against the several times that it would be.
    assert abs(large - small) < 0.1 * small


def test_memory_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.available_memory(torch.device("cpu")) <= whole
    # This process has at least torch in memory, and no more than there is.
    assert 2**26 < memory.resident_bytes() <= whole

    def fail(path: Path, **options: object) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", fail)
    assert memory.available_memory(torch.device("cpu")) == whole


GROUPS = {
    "limit": ("0::/", {"": {"memory.max": 900}}, [500]),
    "of a part": ("0::/a/b", {"a": {"memory.max": 800, "memory.high": "max"}}, [400]),
    "soft": ("0::/a", {"a": {"memory.high": 700, "memory.max": 900}}, [500, 300]),
    "outside's path": ("0::/docker/1f", {"": {"memory.max": 900}}, [500]),
    "none": ("0::/a", {"a": {"memory.max": "max"}}, []),
    "no files": ("0::/../x", {}, []),
    "old": (
        "5:cpu:/a\n4:hugetlb,memory:/a\n1:name=systemd:/a",
        {"memory/a": {"memory.limit_in_bytes": 900}, "cpu/a": {"memory.limit_in_bytes": 1}},
        [500],
    ),
    "old, outside's path": ("4:memory:/d/1", {"memory": {"memory.limit_in_bytes": 450}}, [50]),
}


@pytest.mark.parametrize("case", GROUPS)
def test_limits_of_containers_count(case: str, tmp_path: Path) -> None:
    lines, folders, expected = GROUPS[case]
    (tmp_path / "cgroup").write_text(lines + "\n")
    for name, limits in folders.items():
        folder = tmp_path / "mount" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, value in limits.items():
            (folder / file).write_text(f"{value}\n")
        # of 600 that are taken, 200 are a cache of files that is given back when asked for
        for file in ("memory.current", "memory.usage_in_bytes"):
            (folder / file).write_text("600\n")
        (folder / "memory.stat").write_text(
            "anon 400\ninactive_file 200\ntotal_inactive_file 200\n"
        )
    found = list(of_machine.within_groups(tmp_path / "cgroup", tmp_path / "mount"))
    assert found == expected


def test_memory_within_limits_is_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_machine, "within_groups", lambda: iter([10**6, 300]))
    assert of_machine.free_bytes() == memory.available_memory(torch.device("cpu")) == 300
    with pytest.raises(MemoryLimitError, match="x needs about 1 kB of memory, and 0 kB are free"):
        of_machine.require_free(1000, "x", "take less")
    monkeypatch.setattr(of_machine, "within_groups", lambda: iter([-5]))  # above its soft limit
    assert of_machine.free_bytes() == 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_of_a_cuda_device() -> None:
    free, total = torch.cuda.mem_get_info()
    assert 0 < memory.available_memory(torch.device("cuda")) <= total
    assert free > 0


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InvalidInputError, ValueError),
        (ImageError, ValueError),
        (UnknownNameError, KeyError),
        (DeviceError, RuntimeError),
        (OutputError, OSError),
        (DivergenceError, ArithmeticError),
    ],
)
def test_errors_are_the_packages_and_pythons(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, DipkernelsError)
    assert issubclass(error, builtin)
    assert str(error("a sentence for people")) == "a sentence for people"


def test_devices_are_not_replaced_and_links_stay(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for write in (save_dataset, save_text):
        with pytest.raises(OutputError, match=r"can't write .*: it is no ordinary file"):
            write(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    for _ in range(2):
        save_text(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["file"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_files_of_a_folder_that_can_only_be_read_stay(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(0o555)
    assert files.stays(tmp_path / "file")
    assert not files.stays(tmp_path / "other")
    tmp_path.chmod(0o755)
    assert not files.stays(tmp_path / "file")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    saves: dict[str, Callable[[Path], None]] = {
        "a.nc": save_dataset,
        "b.nc": lambda path: results.save(make_dataset(), path, classic=True),
        "c.txt": lambda path: results.write_text("text" * 100, path),
        "d.png": lambda path: images.save(torch.rand(3, 16, 16), path),
        "e.tif": lambda path: images.save(torch.rand(3, 16, 16), path),
        "f.npy": lambda path: images.save(torch.rand(3, 16, 16), path),
        "g.svg": lambda path: plotting.save_figure(Figure(figsize=(1, 1)), path),
        "h.png": lambda path: plotting.save_figure(Figure(figsize=(1, 1)), path),
        "i.safetensors": lambda path: save_checkpoint(path, {}, {"a": torch.ones(100)}),
    }
    for name, save in saves.items():
        save(tmp_path / name)
    before = {name: (tmp_path / name).read_bytes() for name in saves}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, save in saves.items():
        for length in (0, 100, len(before[name]) - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (length, hard))
            try:
                with pytest.raises(OutputError, match="can't write"):
                    save(tmp_path / name)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
