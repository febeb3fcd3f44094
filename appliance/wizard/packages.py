"""What is in the image beside the base, who may log in, and what happens to a node's disk."""

from __future__ import annotations

from appliance.wizard.engine import (
    BLOCKED,
    DONE,
    OPEN,
    Act,
    Answers,
    Choice,
    NewFile,
    Plan,
    Problem,
    Question,
    Status,
    given,
    word,
    words,
)
from appliance.wizard.facts import Facts, Image, Row
from appliance.wizard.image import BUILD
from appliance.wizard.recipes import NO_KEY, login_keys, recipe_file
from images.errors import GildError
from images.sources.recipetables import public_key
from netboot.profile import parse_rule, rule_text

DEFAULT = "default"
KEYS = "root/.ssh/authorized_keys"
# What installs packages in a system, by its ID of os-release(5).
INSTALLERS = {
    "debian": ("apt-get", "install", "-y"), "ubuntu": ("apt-get", "install", "-y"),
    "fedora": ("dnf", "install", "-y"), "rhel": ("dnf", "install", "-y"), "rocky": ("dnf", "install", "-y"),
    "almalinux": ("dnf", "install", "-y"), "centos": ("dnf", "install", "-y"),
    "opensuse-leap": ("zypper", "-n", "install"), "sles": ("zypper", "-n", "install"),
}  # fmt: skip
# What a set is about, so that two schedulers are noticed before a build says so.
KINDS = ("scheduler-", "mpi-")


class Packages:
    """Sets, packages and keys of the image; disk and layout of the profile."""

    name, title = "packages", "Packages and disk"
    headline = "Packages and disk: what else, and where to?"
    waits: tuple[str, ...] = ()
    explain = (
        "Package sets bring what a cluster needs in one word. A login key lets you in: images have no password, and one"
        " without a key cannot be entered at all. The disk of a node is chosen by a rule, never by a name such as sda;"
        " without a rule it must be the only one. The usual layout is the whole disk: boot partitions, swap by the size"
        " of the memory, and the system."
    )

    def status(self, facts: Facts, answers: Answers) -> Status:
        """Done when the profile has an image that people can log in to and that was built as the answers say."""
        image = _image(facts, answers)
        if image is None:
            return Status(BLOCKED, "no image yet: step 2")
        if facts.serving is None:
            return Status(BLOCKED, "the profile needs a head that serves: step 1")
        if _rebuild(facts, answers, image) is not None:
            return Status(OPEN, f"{image.name} is to be built as answered")
        profile = word(answers.get(self.name, {}), "profile") or DEFAULT
        row = facts.profile(profile)
        # One that names none gets the only one there is: until there are two, and nobody has looked here.
        if row is None or row["image"].partition(":")[0] != image.name:
            return Status(OPEN, f"profile {profile} does not name {image.name}")
        if different := _different(facts, answers, image, row):
            return Status(OPEN, different)
        if image.locked and profile not in facts.keyed and not _nobody(answers):
            return Status(OPEN, f"nobody could log in to {image.ref}")
        return Status(DONE, f"{image.ref} for profile {profile}")

    def questions(self, facts: Facts, answers: Answers) -> tuple[Question, ...]:
        """Sets and packages, keys, disk, layout, profile."""
        asked = []
        if _built(facts, answers):
            asked.append(Question(
                "sets", "Package sets", [], tuple(Choice(name, name, text) for name, text in facts.sets.items()),
                many=True, note="several with commas; none, if empty",
                explain="Each brings packages and what has to be enabled. gild.pyz image recipe --sets lists them.",
            ))  # fmt: skip
        asked += [
            Question(
                "extra", "More packages", [], many=True, pattern=r"[@A-Za-z0-9][A-Za-z0-9+_.:/=~^-]*",
                wants="names of packages", note="none, if empty", explain="Names as the image's own system knows them.",
            ),
            Question(
                "keys", "Who may log in as root", list(facts.keys),
                (*(Choice(key, _short(key), "yours, here", True) for key in facts.keys), Choice(NO_KEY, "nobody")),
                many=True, free=True, pattern=r"(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/=]+( .*)?",
                wants="a public key: ssh-ed25519 AAAA...", explain="Paste a public key, or choose one of this machine.",
            ),
            Question(
                "disk", "Disk to write", "", note="the only one of each machine, if empty",
                pattern=r"([a-z]+=[^\s,]+(,[a-z]+=[^\s,]+)*)?", wants="conditions such as pick=smallest,bus=nvme",
                explain="serial= wwn= model= bus= min= max= rotational= pick=only|smallest|largest",
            ),
            Question(
                "layout", "Layout", "", note="the whole disk, if empty; or a TOML file with [[layout]] tables",
                pattern="(/.+)?", wants="a path from the root, /...", explain="gild.pyz layout check FILE shows it.",
            ),
            Question(
                "profile", "Profile", DEFAULT, pattern="[a-z][a-z0-9-]{0,62}", wants="a-z, 0-9 and '-'",
                explain="The kind of node that gets all this. One kind is enough to begin with.",
            ),
        ]  # fmt: skip
        return tuple(asked)

    def problems(self, facts: Facts, answers: Answers) -> tuple[Problem, ...]:
        """No image, no head, two of a kind, nobody who could log in."""
        image, found = _image(facts, answers), []
        if image is None:
            return (Problem("there is no image yet", "first step 2"),)
        if facts.serving is None:
            return (Problem("a profile is kept by a head that serves", "first step 1"),)
        values = given(self, facts, answers)
        chosen = words(values, "sets")
        for kind in KINDS:
            twice = [name for name in chosen if name.startswith(kind)]
            if len(twice) > 1:
                found.append(Problem(f"{' and '.join(twice)} exclude each other", "take one of them"))
        layout = word(values, "layout")
        if layout and layout in facts.missing:
            found.append(Problem(f"there is no {layout}", "give another path, or nothing"))
        elif layout and facts.layout_trouble:
            found.append(Problem(facts.layout_trouble, f"gild.pyz layout check {layout}"))
        try:
            parse_rule(word(values, "disk"))
            for key in login_keys(facts, answers):
                public_key(key, "login key")
        except GildError as error:
            found.append(Problem(error.message, error.hint))
        locked = image.locked or _rebuild(facts, answers, image) is not None
        keyed = word(values, "profile") in facts.keyed or login_keys(facts, answers)
        if locked and not keyed:
            hint = "make one for root of this head: ssh-keygen -t ed25519; or paste a public key"
            found.append(
                Problem("no way to log in: the image has no key and no password", hint, stops=not _nobody(answers))
            )
        if words(values, "extra") and not _built(facts, answers) and image.family not in INSTALLERS:
            found.append(Problem(f"how {image.system or image.ref} installs packages is not known here",
                                 f"by hand: gild.pyz image edit {image.name}"))  # fmt: skip
        for text in image.errors:
            found.append(Problem(f"{image.ref}: {text}", f"gild.pyz image show {image.ref}", stops=False))
        return tuple(found)

    def plan(self, facts: Facts, answers: Answers) -> Plan:
        """The next version if anything is new, and the profile."""
        image = _image(facts, answers)
        assert image is not None, "its absence is a problem that stops"
        values = given(self, facts, answers)
        acts, effect = [], []
        rebuild = _rebuild(facts, answers, image)
        extra = words(values, "extra")
        ref = f"{image.name}:{image.newest + 1}"
        if rebuild is not None:
            acts += [Act(("image", "build", rebuild.path), (rebuild,)), Act(("image", "tag", image.name))]
            effect.append(f"build {ref}, which nodes get from then on")
        elif set(extra).difference(image.added) and not _built(facts, answers):
            install = ("image", "edit", image.name, "--tag", "--", *INSTALLERS[image.family], *extra)
            acts.append(Act(install))
            effect.append(f"install {', '.join(extra)} in {ref}, which nodes get from then on")
        profile = word(values, "profile")
        said = ["profile", "set", profile, "--image", image.name]
        for key in ("disk", "layout"):
            if word(values, key):
                said += [f"--{key}", word(values, key)]
        # An image that was not built here gets the keys with the profile's files, when a node is installed.
        keys = () if _built(facts, answers) else login_keys(facts, answers)
        path = f"{facts.state}/profiles/{profile}/overlay/{KEYS}"
        files = (NewFile(path, "".join(f"{key}\n" for key in keys), 0o600),) if keys and image.locked else ()
        acts.append(Act(tuple(said), files))
        effect.append(f"give profile {profile} the image {image.name}")
        if files:
            effect.append("and your key")
        return Plan(", ".join(effect) + ". Nothing on any node changes.", tuple(acts))

    def watch(self, facts: Facts, answers: Answers) -> tuple[str, ...]:
        """It waits for nothing."""
        return ()


def _image(facts: Facts, answers: Answers) -> Image | None:
    named = word(answers.get("image", {}), "name")
    if named:
        return facts.image(named)
    return facts.images[0] if facts.images else None


def _built(facts: Facts, answers: Answers) -> bool:
    """Whether it is this wizard's recipe that says what is in the image."""
    return word(answers.get("image", {}), "way") == BUILD


def _rebuild(facts: Facts, answers: Answers, image: Image) -> NewFile | None:
    """The recipe, if the image was not built from what it says now."""
    if not _built(facts, answers):
        return None
    wanted = recipe_file(facts, answers)
    return None if wanted.text == image.recipe else wanted


def _different(facts: Facts, answers: Answers, image: Image, row: Row) -> str:
    """What was answered and is not so yet, "" if there is nothing."""
    mine = answers.get("packages", {})
    if not _built(facts, answers) and set(words(mine, "extra")).difference(image.added):
        return f"packages to be added to {image.ref}"
    if word(mine, "disk") and _rule(word(mine, "disk")) != row["disk"]:
        return f"profile {row['name']} has another disk rule"
    if word(mine, "layout") and facts.layout is not None and list(facts.layout) != row["layout"]:
        return f"profile {row['name']} has another layout"
    return ""


def _rule(text: str) -> str:
    """A disk rule as the head tells it; one that is none, as it is."""
    try:
        return rule_text(parse_rule(text))
    except GildError:
        return text


def _nobody(answers: Answers) -> bool:
    """Whether somebody said that nobody shall log in."""
    given = answers.get("packages", {}).get("keys")
    return given == [NO_KEY] or given == NO_KEY


def _short(key: str) -> str:
    kind, _, rest = key.partition(" ")
    body, _, comment = rest.partition(" ")
    return f"{kind} ...{body[-8:]} {comment}".rstrip()
