"""Weights: no byte is downloaded twice, and a wrong file is never accepted."""

import dataclasses
import hashlib
import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from lift3d import cli
from lift3d.networks import download as downloading
from lift3d.networks import weights
from lift3d.networks.known import MAST3R
from lift3d.scene.errors import InputError

RIGHT = np.random.default_rng(0).bytes(1_500_001)
WRONG = RIGHT[:-1] + bytes([RIGHT[-1] ^ 1])
SHA256 = hashlib.sha256(RIGHT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.body` by the server's other attributes, and records the requests."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        has = self.server
        asked = self.headers.get("Range")
        has.asked.append(asked)
        if has.location:
            self.send_response(302)
            self.send_header("Location", has.location)
            self.end_headers()
            return
        if has.status:
            self.send_error(has.status.pop(0) if len(has.status) > 1 else has.status[0])
            return
        changed = "If-Range" in self.headers and self.headers["If-Range"] != has.tag
        start, end = 0, len(has.body)
        if asked and has.ranges and not (changed and has.minds_if_range):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else end
            if start >= len(has.body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(has.body)}")
        else:
            self.send_response(200)
        if has.chunk is not None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(f"{has.chunk}\r\n".encode() + has.body)
            self.close_connection = True
            return
        self.send_header("Content-Length", has.length or str(end - start))
        if has.tag:
            self.send_header("ETag", has.tag)
        self.end_headers()
        cut = has.cuts.pop(0) if has.cuts else end
        self.wfile.write(has.body[start : max(start, cut)])
        self.close_connection = True


@pytest.fixture
def server():
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.body, serving.ranges, serving.minds_if_range = RIGHT, True, True
    serving.tag, serving.cuts, serving.status, serving.asked = '"1"', [], [], []
    serving.location, serving.length, serving.chunk = None, None, None
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
    thread.start()
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder weights go to; no waiting between tries, and no proxy between."""
    monkeypatch.setenv("LIFT3D_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloading, "WAITS", (0.0, 0.0, 0.0))
    return tmp_path / "cache"


@pytest.fixture
def published(server, monkeypatch):
    """`tiny`, whose hash is published, and `free`, whose is not; both on the server."""
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    for name, sha256 in (("tiny", SHA256), ("free", None)):
        entry = weights.Checkpoint(
            name, f"{url}{name}.pth", len(RIGHT), sha256, "tests", "CC BY-NC-SA, non-commercial"
        )
        monkeypatch.setitem(weights.KNOWN, name, entry)
    return server


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_fetched_and_then_found(published, cache):
    ticks, lines = [], []
    path = weights.fetch("tiny", lambda *tick: ticks.append(tick), log=lines.append)
    assert path == weights.find("tiny") == cache / "tiny.pth"
    assert path.read_bytes() == RIGHT
    assert names(cache) == ["tiny.pth", "tiny.pth.json"]
    assert ticks[-1] == (1, 1)
    assert "non-commercial; you accept it by fetching" in lines[0]
    assert "SHA-256 as expected" in lines[-1]


def test_a_second_fetch_only_verifies(published):
    weights.fetch("tiny")
    weights.fetch("tiny")
    assert published.asked == [None]


def test_a_broken_download_resumes_where_it_stopped(published):
    published.cuts = [400_000, 400_000, 1_000_000]
    lines = []
    assert weights.fetch("tiny", log=lines.append).read_bytes() == RIGHT
    assert published.asked == [
        None,
        "bytes=400000-",
        "bytes=400000-",
        "bytes=1000000-",
    ]
    assert any("ended too early; trying again at byte 400,000" in line for line in lines)


def test_received_bytes_reset_the_number_of_retries(published):
    published.cuts = list(range(100_000, 1_500_000, 100_000))
    assert weights.fetch("tiny").read_bytes() == RIGHT
    assert len(published.asked) == 15


def test_a_failed_download_keeps_its_part_for_the_next_command(published, cache):
    published.cuts = [700_000] * 4
    with pytest.raises(InputError, match=r"700,000 of 1,500,001 bytes are kept .* same command"):
        weights.fetch("tiny")
    assert names(cache) == ["tiny.pth.part", "tiny.pth.part.etag"]
    assert "1 MB of it; to go on: lift3d weights tiny" in weights.listing()
    with pytest.raises(InputError, match="run: lift3d weights tiny"):
        weights.find("tiny")
    published.asked.clear()
    assert weights.fetch("tiny").read_bytes() == RIGHT
    assert published.asked == ["bytes=700000-"]
    assert names(cache) == ["tiny.pth", "tiny.pth.json"]


def test_a_reset_or_stalled_connection_is_retried(published, monkeypatch):
    """What came before is kept, to the byte."""
    real, breaks, came = downloading._open, [TimeoutError("timed out")], []

    def opened(url, headers):
        response = real(url, headers)
        if breaks:
            read = response.read1

            def once(amount):
                if len(came) == 2:
                    response.close()
                    raise breaks.pop()
                came.append(read(100_000))
                return came[-1]

            response.read1 = once
        return response

    monkeypatch.setattr(downloading, "_open", opened)
    assert weights.fetch("tiny").read_bytes() == RIGHT
    assert published.asked == [None, f"bytes={len(came[0] + came[1])}-"]
    assert 0 < len(came[0] + came[1]) < downloading.CHUNK


def test_a_dripping_connection_ends_after_some_retries(published, monkeypatch):
    """With a clock that a test can turn; its part is kept."""
    now = [0.0]
    monkeypatch.setattr(downloading.time, "monotonic", lambda: now[0])
    real = downloading._open

    def opened(url, headers):
        response = real(url, headers)
        read = response.read1

        def drip(amount):
            now[0] += 7.0
            return read(5)

        response.read1 = drip
        return response

    monkeypatch.setattr(downloading, "_open", opened)
    lines = []
    with pytest.raises(InputError, match=r"only 25 bytes came in 35 s; 100 of 1,500,001 bytes"):
        weights.fetch("tiny", log=lines.append)
    assert sum("trying again at byte" in line for line in lines) == len(downloading.WAITS)


def test_an_odd_content_length_is_not_believed(published):
    published.length = "abc"
    assert weights.fetch("tiny").read_bytes() == RIGHT


@pytest.mark.parametrize("size", ["-5", "zz"])
def test_an_odd_chunk_size_is_a_broken_connection(published, size):
    """Or the bytes are the right ones all the same."""
    published.chunk = size
    assert cli.main(["weights", "tiny"]) in (0, 2)


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("http://[::1", "cannot be read"),
        ("ftp://127.0.0.1/tiny.pth", "no web address"),
        ("file:///etc/hostname", "cannot fetch"),
    ],
)
def test_a_redirect_that_is_no_web_address_is_an_error(published, to, said):
    published.location = to
    with pytest.raises(InputError, match=said):
        weights.fetch("tiny")


def test_what_a_server_says_does_not_act_on_the_terminal(published, capsys):
    published.tag = '"\x1b]0;owned\x07"'
    weights.fetch("tiny")
    published.location = "ftp://127.0.0.1/\x1b[31m"
    assert cli.main(["weights", "free"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_server_without_ranges_sends_the_complete_file_again(published):
    published.ranges, published.cuts = False, [400_000]
    lines = []
    assert weights.fetch("tiny", log=lines.append).read_bytes() == RIGHT
    assert published.asked == [None, "bytes=400000-"]
    assert any("the whole file again" in line for line in lines)


@pytest.mark.parametrize("minds_if_range", [True, False])
def test_two_files_are_never_mixed(published, minds_if_range):
    """The file on the server is replaced between two tries, and its hash is unknown."""
    published.body, published.tag, published.cuts = WRONG[::-1], '"0"', [400_000] * 5
    with pytest.raises(InputError):
        weights.fetch("free")
    published.body, published.tag, published.cuts = RIGHT, '"1"', []
    published.minds_if_range = minds_if_range
    assert weights.fetch("free").read_bytes() == RIGHT


def test_a_part_longer_than_the_servers_file_does_not_block_for_ever(published, cache):
    published.cuts = [1_000_000] * 5
    with pytest.raises(InputError):
        weights.fetch("tiny")
    published.body = RIGHT[:500]
    with pytest.raises(InputError, match="has 500 bytes where 1,500,001 were expected"):
        weights.fetch("tiny")
    published.body = RIGHT
    assert weights.fetch("tiny").read_bytes() == RIGHT


def test_a_wrong_file_is_renamed_to_bad_and_reported(published, cache):
    published.body = WRONG
    for bad in ("tiny.pth.bad", "tiny.pth.bad2"):
        with pytest.raises(InputError, match=f"expected {SHA256}.*kept as .*{bad} ") as caught:
            weights.fetch("tiny")
        assert hashlib.sha256(WRONG).hexdigest() in str(caught.value)
        assert (cache / bad).read_bytes() == WRONG
    assert names(cache) == ["tiny.pth.bad", "tiny.pth.bad2"]
    published.body = RIGHT
    assert weights.fetch("tiny").read_bytes() == RIGHT


def test_a_login_page_is_not_taken_for_weights(published, cache):
    published.body = b"<html>log in</html>"
    with pytest.raises(InputError, match=r"has 19 bytes where 1,500,001 .* login page"):
        weights.fetch("tiny")
    assert not (cache / "tiny.pth").exists()


def test_a_missing_page_is_an_error_without_retries(published):
    published.status = [404]
    with pytest.raises(InputError, match=r"404 Not Found; get the file another way .* --path"):
        weights.fetch("tiny")
    assert len(published.asked) == 1


def test_a_busy_server_is_retried(published):
    published.status = [503, 429, 404]
    with pytest.raises(InputError, match="404"):
        weights.fetch("tiny")
    assert len(published.asked) == 3


def test_an_unreachable_server_is_an_error_after_some_retries(published, monkeypatch):
    url = "http://127.0.0.1:1/tiny.pth"
    entry = dataclasses.replace(weights.KNOWN["tiny"], url=url)
    monkeypatch.setitem(weights.KNOWN, "tiny", entry)
    lines = []
    with pytest.raises(InputError, match=r"no connection .* 0 of 1,500,001 bytes"):
        weights.fetch("tiny", log=lines.append)
    assert sum("trying again" in line for line in lines) == 3


def test_a_full_disk_is_an_error_before_the_download_and_the_part_stays(
    published, cache, monkeypatch, capsys
):
    published.cuts = [400_000] * 5
    with pytest.raises(InputError):
        weights.fetch("tiny")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_100_000))
    assert cli.main(["weights", "tiny"]) == 1
    output = capsys.readouterr().err
    assert "No space left on device: 1,100,001 bytes are to come, 1,100,000 are free" in output
    assert (cache / "tiny.pth.part").stat().st_size == 400_000


def test_an_unpublished_hash_is_trusted_on_first_use_and_held_to(published, cache):
    lines = []
    path = weights.fetch("free", log=lines.append)
    assert any("no published SHA-256" in line and SHA256 in line for line in lines)
    record = json.loads((cache / "free.pth.json").read_text())
    assert (record["sha256"], record["sha256_is"]) == (SHA256, "trusted on first use")
    assert f"{SHA256}, trusted on first use on {record['first']}" in weights.listing()
    path.unlink()
    published.body = WRONG
    with pytest.raises(InputError, match=rf"expected {SHA256} as of the first use .* delete "):
        weights.fetch("free")
    assert not path.exists()


def test_a_damaged_record_does_not_make_any_file_the_first(published, cache):
    weights.fetch("free")
    (cache / "free.pth.json").write_text("{")
    published.body = WRONG
    with pytest.raises(InputError, match="damaged"):
        weights.fetch("free")


def test_a_file_that_was_only_copied_or_dated_anew_is_found(published, cache):
    path = weights.fetch("tiny")
    os.utime(path, ns=(1, 1))
    assert weights.find("tiny") == path
    assert "yes" in weights.listing().split("tiny")[1]


def test_a_file_overwritten_with_the_old_size_and_date_is_not_found(published, cache):
    path = weights.fetch("tiny")
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputError, match="changed since it was verified"):
        weights.find("tiny")


def test_a_file_changed_since_it_was_verified_is_not_found(published, cache):
    path = weights.fetch("tiny")
    path.write_bytes(WRONG)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match=r"changed since it was verified; run: lift3d weights"):
        weights.find("tiny")
    assert "not verified" in weights.listing()
    with pytest.raises(InputError, match=r"tiny\.pth\.bad"):
        weights.fetch("tiny")


def test_a_file_put_into_the_folder_by_hand_is_verified_first(published, cache):
    cache.mkdir()
    (cache / "tiny.pth").write_bytes(RIGHT)
    with pytest.raises(InputError, match="never verified"):
        weights.find("tiny")
    weights.fetch("tiny")
    assert weights.find("tiny") == cache / "tiny.pth"
    assert published.asked == []


def test_a_local_file_is_used_in_place(published, cache, tmp_path):
    own = tmp_path / "mine.pth"
    own.write_bytes(RIGHT)
    assert weights.fetch("tiny", path=own) == weights.find("tiny") == own
    assert names(cache) == ["tiny.pth.json"]
    own.unlink()
    with pytest.raises(InputError, match="are not in"):
        weights.find("tiny")
    assert weights.fetch("tiny") == cache / "tiny.pth"


@pytest.mark.parametrize("content", [WRONG, RIGHT[:-1], b""])
def test_a_wrong_local_file_is_left_alone(published, cache, tmp_path, content):
    own = tmp_path / "mine.pth"
    own.write_bytes(content)
    with pytest.raises(InputError, match="left as it is"):
        weights.fetch("tiny", path=own)
    assert own.read_bytes() == content
    assert not cache.exists()


def test_a_file_url_works_too(published, tmp_path, monkeypatch):
    own = tmp_path / "share.pth"
    own.write_bytes(RIGHT)
    entry = dataclasses.replace(weights.KNOWN["tiny"], url=own.as_uri())
    monkeypatch.setitem(weights.KNOWN, "tiny", entry)
    assert weights.fetch("tiny").read_bytes() == RIGHT
    entry = dataclasses.replace(entry, url=(tmp_path / "none.pth").as_uri())
    monkeypatch.setitem(weights.KNOWN, "tiny", entry)
    with pytest.raises(InputError, match="no such file"):
        weights.fetch("tiny", folder=tmp_path / "other")


def test_two_at_once_are_refused(published, cache):
    import fcntl

    cache.mkdir()
    with (cache / "tiny.pth.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another lift3d is fetching"):
            weights.fetch("tiny")


def test_a_path_is_taken_as_is_and_a_typo_gets_did_you_mean(tmp_path):
    assert weights.find(tmp_path) == tmp_path
    assert weights.find(str(tmp_path)) == tmp_path
    with pytest.raises(InputError, match=r"no file 'sam_vit_bb', and .* did you mean 'sam_vit_b'"):
        weights.find("sam_vit_bb")


def test_absent_weights_name_the_command_and_the_licence():
    with pytest.raises(InputError, match=rf"lift3d weights {MAST3R} .*non-commercial"):
        weights.find(MAST3R)


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("LIFT3D_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / "lift3d"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / ".cache/lift3d"


def test_without_a_home_the_message_says_what_to_set(monkeypatch, capsys):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("LIFT3D_WEIGHTS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(weights.Path, "home", no_home)
    assert cli.main(["weights"]) == 2
    assert "set LIFT3D_WEIGHTS" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"no file '~nobody-known/x\.pth'"):
        weights.find("~nobody-known/x.pth")


def test_the_command_lists_what_is_known(capsys):
    assert cli.main(["weights"]) == 0
    output = capsys.readouterr().out
    for checkpoint in weights.KNOWN.values():
        assert checkpoint.licence in output
        end = " --path FILE, with" if checkpoint.form else "\n"
        assert f"no; to fetch: lift3d weights {checkpoint.name}{end}" in f"{output}\n"
    for word in (
        "CC BY-NC-SA 4.0, non-commercial",
        "Apache-2.0",
        "2,755 MB",
        "ec2df62732",
        "not known",
    ):
        assert word in output


def test_the_command_fetches_into_a_folder(published, tmp_path, capsys):
    folder = tmp_path / "other"
    assert cli.main(["weights", "tiny", "--folder", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{folder / 'tiny.pth'}\n"
    assert "you accept it by fetching" in err
    assert f"LIFT3D_WEIGHTS={folder}" in err
    assert weights.find("tiny", folder) == folder / "tiny.pth"


def test_the_command_explains_errors(published, tmp_path, capsys):
    assert cli.main(["weights", "tinny"]) == 2
    assert "did you mean 'tiny'" in capsys.readouterr().err
    assert cli.main(["weights", "--path", "x.pth"]) == 2
    assert "lift3d weights NAME --path FILE" in capsys.readouterr().err
    assert cli.main(["weights", "tiny", "--path", str(tmp_path / "x.pth")]) == 2
    assert "--path takes tiny.pth" in capsys.readouterr().err


def test_published_hashes_are_complete():
    for checkpoint in weights.KNOWN.values():
        assert checkpoint.url.startswith("https://")
        assert checkpoint.sha256 is None or len(bytes.fromhex(checkpoint.sha256)) == 32


@pytest.fixture
def roughly(published, monkeypatch):
    """`rough`, of which only about the size is known, and `asked`, which is behind a form."""
    entry = dataclasses.replace(
        weights.KNOWN["free"], name="rough", size=1_450_000, about=True, saved="Rough.pth"
    )
    monkeypatch.setitem(weights.KNOWN, "rough", entry)
    form = dataclasses.replace(entry, name="asked", form="https://example.org/form", saved="A.pth")
    monkeypatch.setitem(weights.KNOWN, "asked", form)
    return published


def test_a_size_that_is_only_about_known_is_asked_of_the_server(roughly, cache):
    path = weights.fetch("rough")
    assert path == weights.find("rough") == cache / "Rough.pth"
    assert path.read_bytes() == RIGHT
    assert roughly.asked == ["bytes=0-0", None]
    assert "about 1 MB" in weights.listing()


def test_a_file_of_a_very_different_size_is_not_fetched(roughly, cache):
    roughly.body = RIGHT[:900_000]
    with pytest.raises(InputError, match="has 900000 bytes where about 1,450,000 were expected"):
        weights.fetch("rough")
    assert not cache.exists() or not names(cache)


def test_a_file_behind_a_form_is_not_fetched_but_taken(roughly, tmp_path):
    with pytest.raises(InputError, match=r"fill it in at https://example.org/form.*--path"):
        weights.fetch("asked")
    assert not roughly.asked
    assert "--path FILE, with the file from https://example.org/form" in weights.listing()
    own = tmp_path / "mine.pt"
    own.write_bytes(RIGHT)
    assert weights.fetch("asked", path=own) == weights.find("asked") == own


def test_licences_of_vggt_are_said_where_one_chooses(capsys):
    from lift3d.reconstruction.vggt import VggtReconstructionConfig

    assert cli.main(["weights"]) == 0
    listed = capsys.readouterr().out
    for word in ("VGGT-1B\n", "VGGT-1B-Commercial\n", "VGGT-S\n", "excludes among others military"):
        assert word in listed
    assert "non-commercial" in (VggtReconstructionConfig.__doc__ or "")
