"""Recipes as text: every mistake is named with its line."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import RecipeInvalid
from images.sources.recipelines import Where
from images.sources.recipetables import FILE_KEYS, PART_KEYS, REPO_KEYS, USER_KEYS, Script
from images.sources.recipetext import KEYS, checked, parse_recipe, recipe_of
from tests.images.keys import KEY

GOOD = """name = "compute"
suite = "bookworm"
packages = ["linux-image-amd64", "libc6:amd64", "slurmd=22.05.8-4+deb12u3"]
mirror = "http://mirror.example/debian"
cmdline = "quiet"
scripts = ["true", { file = "setup.sh" }]

[files]
"/etc/motd" = { content = "hi\\n", mode = "0600", owner = "man:man" }
"/etc/copied" = { source = "copied" }
"""


def test_a_recipe_is_read() -> None:
    recipe = parse_recipe(GOOD)
    assert recipe.name == "compute" and recipe.mirrors == ("http://mirror.example/debian",)
    assert recipe.scripts == (Script("true"), Script(file="setup.sh"))
    copied, motd = recipe.files
    assert (motd.path, motd.content, motd.mode, motd.owner) == ("/etc/motd", "hi\n", 0o600, "man:man")
    assert (copied.content, copied.source, copied.mode, copied.owner) == (None, "copied", 0o644, "root:root")


@pytest.mark.parametrize(
    ("change", "line", "text"),
    [
        (("packages", "packges"), 3, "unknown key 'packges' (did you mean 'packages'?)"),
        (("mode", "mdoe"), 9, "unknown key 'mdoe' (did you mean 'mode'?)"),
        (("cmdline", "zzzzz"), 5, "unknown key 'zzzzz' (known: name, "),
        (('"bookworm"', "12"), 2, "suite must be a text"),
        (('"bookworm"', '"Book worm"'), 2, "'Book worm' is not possible"),
        (('"linux-image-amd64"', "5"), 3, "packages must be a list of texts"),
        (('"linux-image-amd64"', '"--evil"'), 3, "'--evil' is not possible"),
        (('"compute"', '"../x"'), 1, "'../x' is not possible"),
        (('"/etc/motd"', '"etc/motd"'), 9, "must be absolute"),
        (('"/etc/motd"', '"/etc/../motd"'), 9, "must be absolute"),
        (('"0600"', '"0999"'), 9, "not octal"),
        (('"0600"', "384"), 9, "not octal"),
        (('"man:man"', '"man; rm"'), 9, "not user or user:group"),
        (('source = "copied"', 'mode = "0644"'), 10, "either content or source"),
        (('"quiet"', '"a\\nb"'), 5, "not possible"),
        (("{ file =", "{ fil ="), 6, "scripts must hold"),
        (('mirror = "http', 'mirrors = []\nmirror = "http'), 4, "cannot both"),
    ],
)
def test_mistakes_are_named_with_their_line(change: tuple[str, str], line: int, text: str) -> None:
    with pytest.raises(RecipeInvalid) as failure:
        parse_recipe(GOOD.replace(*change, 1))
    assert f"line {line}:" in str(failure.value) and text in str(failure.value)


MORE = f"""name = "compute"
keys = ["{KEY}"]
enable = ["chrony.service"]
mpi = "openmpi"
scheduler = "none"

[variables]
port = 9100

[templates]
"/etc/issue" = {{ content = "${{port}}" }}

[[users]]
name = "anna"
uid = 2000
shell = "/bin/bash"
groups = ["adm"]
password_hash = "$y$j9T$abcdefghijklmnop$abcdefghijklmnop"
sudo = true

[[layout]]
name = "swap"
size = "8GiB"
fs = "swap"

[[layout]]
name = "root"
size = "rest"
mount = "/"
"""


def test_users_templates_and_a_layout_are_read() -> None:
    recipe = parse_recipe(MORE)
    assert recipe.users[0].uid == 2000 and recipe.users[0].sudo and recipe.users[0].groups == ("adm",)
    assert recipe.sets == ("mpi-openmpi",) and recipe.variables == (("port", "9100"),)
    assert recipe.files[0].template and recipe.keys == (KEY,)
    assert [part["name"] for part in recipe.layout] == ["swap", "root"]


@pytest.mark.parametrize(
    ("change", "line", "text"),
    [
        (("ssh-ed25519 AAAA", "ssh-rsa AAAA"), 2, "not an ssh public key"),
        ((KEY, "-----BEGIN OPENSSH PRIVATE KEY-----"), 2, "private key"),
        (('"chrony.service"', '"chrony"'), 3, "'chrony' is not possible"),
        (("port = 9100", "port = [1]"), 8, "variable 'port' must be"),
        (('"anna"', '"Anna"'), 13, "'Anna' is no user name"),
        (("uid = 2000", "uid = 0"), 14, "uid 0 is root's"),
        (("uid = 2000", "uid = 65534"), 14, "uid 65534 is not possible"),
        (("uid = 2000", "uid = true"), 14, "uid True is not possible"),
        (('"/bin/bash"', '"bash"'), 14, "shell 'bash' must be an absolute path"),
        (('"/bin/bash"', '"/bin/x:y"'), 14, "without ':'"),
        (("password_hash =", "password ="), 14, "a password in clear"),
        (("$y$j9T$abcdefghijklmnop$abcdefghijklmnop", "secret"), 14, "no hash of crypt(5)"),
        (("$y$j9T$", "$1$"), 14, "no hash of crypt(5)"),
        (("sudo = true", "sudoo = true"), 19, "unknown key 'sudoo' (did you mean 'sudo'?)"),
        (('"8GiB"', '"many"'), 21, "size 'many' is not possible"),
        (('size = "8GiB"', ""), 21, "needs a name and a size"),
        (('mount = "/"', ""), 21, "has to be mounted at '/'"),
        (('"8GiB"', '"rest"'), 21, "more than one partition wants the rest"),
        (
            ("[templates]", '[files]\n"/etc/issue" = { content = "" }\n[templates]'),
            11,
            "both in files and in templates",
        ),
        (('name = "compute"', 'family = "gentoo"'), 1, "family 'gentoo' is not known"),
        (('name = "compute"', 'repos.x = { url = "http://m" }'), 1, "means nothing for family debian"),
        (('name = "compute"', 'family = "dnf"\nmirror = "http://m"'), 2, "mirror means nothing for family dnf"),
        (('name = "compute"', 'scripts = [{ text = "x", limit = 0 }]'), 1, "limit 0 is not"),
    ],
)
def test_mistakes_in_tables_are_named(change: tuple[str, str], line: int, text: str) -> None:
    assert change[0] in MORE
    with pytest.raises(RecipeInvalid) as failure:
        parse_recipe(MORE.replace(*change, 1))
    assert f"line {line}:" in str(failure.value) and text in str(failure.value)


def test_two_users_of_one_number() -> None:
    with pytest.raises(RecipeInvalid, match="two users have the uid 2000"):
        parse_recipe(MORE + '[[users]]\nname = "bert"\nuid = 2000\n')


def test_repositories_of_rpm_packages() -> None:
    text = 'family = "dnf"\nsuite = "9"\npackages = ["@core", "NetworkManager", "kernel"]\n'
    text += '[repos.base]\nurl = "https://m.example/$releasever/"\nkey = "KEY"\n'
    recipe = parse_recipe(text)
    assert recipe.repos[0].key == "KEY" and recipe.packages[0] == "@core"
    with pytest.raises(RecipeInvalid, match="line 4: repository 'base': needs either the key"):
        parse_recipe(text.replace('key = "KEY"\n', ""))
    with pytest.raises(RecipeInvalid, match="needs either the key"):
        parse_recipe(text + "unsigned = true\n")


def test_what_is_no_toml_says_where() -> None:
    with pytest.raises(RecipeInvalid, match="line 2"):
        parse_recipe('name = "x"\npackages = maybe\n')


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_one_error(text: str) -> None:
    try:
        parse_recipe(text)
        tomllib.loads(text)
    except RecipeInvalid as error:
        assert "\n" not in error.message


texts = st.sampled_from(["", "x", "/x", "debian", "dnf", "rest", "0644", "-x", "a.service", "/", "ext4", "\x00", KEY])
names = st.sampled_from([*FILE_KEYS, *USER_KEYS, *REPO_KEYS, *PART_KEYS, "text", "file", "limit", "/etc/x", "x"])
values = st.recursive(
    texts | st.integers(-2, 2**40) | st.booleans() | st.floats() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*KEYS, "x"]), values, max_size=5))
def test_any_values_are_a_recipe_or_one_error(body: dict[str, object]) -> None:
    try:
        recipe_of(checked(body, Where()))
    except RecipeInvalid as error:
        assert "\n" not in error.message and "\x00" not in error.message
