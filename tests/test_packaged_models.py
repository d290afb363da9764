import hashlib

import pytest

from gpro_empathy import packaged_models
from gpro_empathy.files import UserError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a package with one small model file on the path; return the file.

    `packaged` knows it as `toy`.
    """
    file = tmp_path / "toy_package" / "model.bin"
    file.parent.mkdir()
    (file.parent / "__init__.py").write_text("raise RuntimeError('a package with a model must not be imported')\n")
    file.write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        packaged_models.FILES, "toy", ("toy_package", "model.bin", hashlib.sha256(b"weights").hexdigest())
    )
    return file


@pytest.mark.parametrize("name", list(packaged_models.FILES))
def test_installed_models_are_the_expected_ones(name):
    assert packaged_models.find(name).stat().st_size > 10_000_000


def test_digests_are_the_published_ones():
    assert [entry[2] for entry in packaged_models.FILES.values()] == [
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ]


def test_file_is_found_without_importing_its_package(package):
    assert packaged_models.find("toy") == package


def test_refuses_an_altered_file(package):
    package.write_bytes(b"weightz")
    found = hashlib.sha256(b"weightz").hexdigest()
    with pytest.raises(UserError, match=rf"model\.bin: .*{found}.*`rm -rf \.venv"):
        packaged_models.find("toy")


def test_refuses_a_missing_file(package):
    package.unlink()
    with pytest.raises(UserError, match=r"model\.bin: .*run"):
        packaged_models.find("toy")


def test_refuses_a_missing_package(monkeypatch):
    monkeypatch.setitem(packaged_models.FILES, "toy", ("no_such_package_here", "x", ""))
    with pytest.raises(UserError, match=r"toy: .*no_such_package_here.*`make setup`"):
        packaged_models.find("toy")
