"""What a command says on standard error."""


def one_line(text: bytes) -> str:
    """What was said on standard error, which is to be one line and no traceback."""
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    assert b"Traceback" not in text
    assert text.startswith(b"pageowner: ")
    return text.decode()
