from __future__ import annotations

import pytest

from appliance.rendering import MAX_TEXT, Renderer, RenderFailed

FACTS = {"node": {"name": "node01"}, "names": ["n01", "n02", "n03"], "rows": {"a": 1}, "big": range(5000)}


@pytest.fixture(autouse=True)
def fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a test has time for."""
    monkeypatch.setattr("appliance.rendering.MAX_ROUNDS", 60_000)


def render(text: str) -> str:
    return Renderer().render("etc/x.j2", text, FACTS)


def test_templates_of_configuration_keep_their_lines() -> None:
    text = "# {{ node.name }}\n{% for name in names %}\n  {% if name != 'n02' %}\nHost {{ name }}\n"
    text += "  {% endif %}\n{% endfor %}\nend\n"
    assert render(text) == "# node01\nHost n01\nHost n03\nend\n"
    assert render("no newline at the end") == "no newline at the end"
    assert render("{{ names | fold }} {{ rows.items() | list }} {{ 6 * 7 }}") == "n[01-03] [('a', 1)] 42"
    assert render("<a> & 'b' {{ '<>&' }}") == "<a> & 'b' <>&"  # files, not pages
    assert render("{% macro m(x) %}{% for i in range(2) %}{{ x }}{% endfor %}{% endmacro %}{{ m('y') }}") == "yy"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a\nb\n{{ nothing }}\n", 3, "'nothing' is undefined"),
        ("{{ node.nothing }}", 1, "no attribute 'nothing'"),
        ("a\n{% if %}\n", 2, "Expected"),
        ("a\n\n{% for x in names %}\n", 3, "Unexpected end"),
        ("\n{% for n in names %}\n{{ n / 0 }}{% endfor %}", 3, "unsupported operand"),
        ("{{ 1 / 0 }}", 1, "division by zero"),
        ("{% macro m() %}\n{{ nothing }}\n{% endmacro %}\n{{ m() }}", 2, "'nothing' is undefined"),
        ("{{ ''.__class__.__mro__ }}", 1, "unsafe"),
        ("{{ names.append('x') }}", 1, "unsafe"),
        ("{% include '/etc/passwd' %}", 1, "no loader"),
        ("{{ lipsum() }}", 1, "'lipsum' is undefined"),
        ("{{ names.format }}", 1, "no attribute 'format'"),
    ],
)
def test_what_fails_is_named_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(RenderFailed) as caught:
        render(text)
    assert caught.value.message.startswith(f"etc/x.j2, line {line}: ") and words in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in big %}{% for b in big %}{% endfor %}{% endfor %}",
        "{% for a in big %}{% for b in big %}{% if b == 7 %}{% set c = a %}{% endif %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10 }}", "{{ [0] * 10 }}", "{{ 2 ** 10 }}", "{{ range(1000000) | list }}",
        "{% for a in big %}" + "x" * (MAX_TEXT // 1000) + "{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{" + "(" * 3000 + "1" + ")" * 3000 + "}}",
    ],
)  # fmt: skip
def test_a_slip_of_the_pen_does_not_stop_the_head(text: str) -> None:
    with pytest.raises(RenderFailed, match=r"^etc/x\.j2"):
        render(text)


def test_loops_are_counted_for_each_rendering_alone() -> None:
    renderer = Renderer()
    for _ in range(4):
        loop = "{% for a in big %}{% for b in range(10) %}{% endfor %}{% endfor %}"
        assert renderer.render("x", loop, FACTS) == ""


def test_messages_are_one_printable_line() -> None:
    with pytest.raises(RenderFailed) as caught:
        render("{{ rows['a\\n\\x1b[31m\\u202e'] }}")
    assert caught.value.message.isprintable()
