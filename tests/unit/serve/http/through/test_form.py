"""A form is read in one way or not at all, and what is written of it says the same to another reader."""

from __future__ import annotations

from contextlib import suppress
from email import message_from_bytes
from email.policy import HTTP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen.serve.http.problem import Refused
from kaizen.serve.http.through.form import MAX_PARTS, Part, changed, field_of, read, write

KIND = b"multipart/form-data; boundary=b"
FIELD = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper\r\n'

names = st.from_regex(r"\A[a-z][a-z_]{0,9}(\[\])?\Z")
filenames = st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters='\\"%'))
parts = st.builds(
    Part,
    name=names,
    data=st.binary(max_size=200),
    filename=filenames,
    content_type=st.sampled_from([None, "audio/mpeg"]),
)


@given(st.lists(parts, min_size=1, max_size=8))
def test_what_is_written_is_read_the_same(made: list[Part]) -> None:
    kind, body = write(made)
    assert read(kind.encode(), body) == made


@given(st.lists(parts, min_size=1, max_size=8))
def test_another_reader_sees_the_same(made: list[Part]) -> None:
    kind, body = write(made)
    form = message_from_bytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + body, policy=HTTP)
    seen = [
        (part.get_param("name", header="content-disposition"), part.get_payload(decode=True))
        for part in form.iter_parts()
    ]
    assert seen == [(part.name, part.data) for part in made]


@given(st.binary(max_size=300))
def test_no_body_does_more_than_be_refused(body: bytes) -> None:
    for data in (body, b"--b" + body, b"--b\r\n" + body + b"\r\n--b--\r\n", FIELD + body):
        with suppress(Refused):
            assert all(0 < len(part.name) <= 64 for part in read(KIND, data))


def one(head: str, data: bytes = b"x") -> Part:
    [part] = read(KIND, b"--b\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n--b--\r\n")
    return part


@pytest.mark.parametrize(
    ("head", "name", "filename"),
    [
        ('Content-Disposition: form-data; name="file"; filename="a.mp3"', "file", "a.mp3"),
        ("content-disposition: form-data; name=file; filename=a.mp3", "file", "a.mp3"),
        (
            'content-disposition: form-data; name="file"; filename="x"; filename*=UTF-8\'\'Gr%C3%BC%C3%9Fe.mp3',
            "file",
            "Grüße.mp3",
        ),
        ('content-disposition: form-data; name="file"; filename=""', "file", ""),
        ('content-disposition: form-data; name="image[]"\r\nContent-Transfer-Encoding: binary', "image[]", None),
    ],
)
def test_heads_as_clients_write_them_are_read(head: str, name: str, filename: str | None) -> None:
    part = one(head)
    assert (part.name, part.filename, part.data) == (name, filename, b"x")


@pytest.mark.parametrize(
    "head",
    [
        "",
        "x",
        "content-type: text/plain",
        'content-disposition: attachment; name="model"',
        'content-disposition: form-dataX; name="model"',
        "content-disposition: form-data",
        'content-disposition: form-data; name=""',
        'content-disposition: form-data; name="a b"',
        'content-disposition: form-data; name="m\\odel"',
        'content-disposition: form-data; name="model"; name="file"',
        "content-disposition: form-data; name*=UTF-8''model",
        'content-disposition: form-data; name="file"; size=3',
        'content-disposition: form-data; name="file"; rest',
        'content-disposition: form-data; name="file"\r\ncontent-disposition: form-data; name="model"',
        'content-disposition: form-data; name="file"\r\n continued: yes\x00',
        'content-disposition: form-data; name="file"\r\ncontent-transfer-encoding: base64',
        'content-disposition: form-data; name="file"\r\ncontent-type: text/plain\x7f',
        'content-disposition: form-data; name="file"\r\ncontent-type: nonsense',
        'content-disposition: form-data; name="' + "a" * 65 + '"',
        "x: " + "a" * 5000,
    ],
)
def test_heads_that_two_readers_could_read_in_two_ways_are_refused(head: str) -> None:
    with pytest.raises(Refused):
        one(head)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"multipart/form-data", FIELD + b"--b--"),
        (b"multipart/form-data; boundary=", FIELD + b"--b--"),
        (b"multipart/form-data; boundary=" + b"b" * 71, FIELD + b"--b--"),
        (KIND, b""),
        (KIND, FIELD),
        (KIND, b"before\r\n" + FIELD + b"--b--"),
        (KIND, FIELD + b"--b--after"),
        (KIND, b"--b\r\n\xff\xff: x\r\n\r\nx\r\n--b--"),
        (KIND, FIELD * (MAX_PARTS + 1) + b"--b--"),
    ],
)
def test_what_is_no_whole_form_is_refused(kind: bytes, body: bytes) -> None:
    with pytest.raises(Refused):
        read(kind, body)


def test_a_quoted_boundary_is_one() -> None:
    [part] = read(b'multipart/form-data; charset=x; boundary="a b"', FIELD.replace(b"--b", b"--a b") + b"--a b--")
    assert part.text == "whisper"


def test_a_field_is_there_once_and_is_no_file() -> None:
    field, file = Part("model", b"x"), Part("model", b"x", filename="")
    assert field_of([field, Part("file", b"")], "model") == "x"
    assert field_of([], "model") is None
    for wrong in ([field, field], [field, file], [file], [Part("model", b"\xff")]):
        with pytest.raises(Refused):
            field_of(wrong, "model")


def test_another_value_goes_into_the_field_of_that_name_alone() -> None:
    before: list[Any] = [Part("model", b"x"), Part("file", b"x", "x")]
    assert changed(before, "model", "y") == [Part("model", b"y"), before[1]]


def test_a_file_name_can_t_end_its_quotes() -> None:
    _, body = write([Part("file", b"", 'a"; name="model\r\n\x00.mp3\\')])
    assert b'filename="a%22; name=%22model.mp3_"' in body
