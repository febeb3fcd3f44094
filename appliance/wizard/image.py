"""What the nodes run: the first version of an image, by one of five ways in."""

from __future__ import annotations

from appliance.wizard.engine import (
    BLOCKED,
    DONE,
    OPEN,
    Act,
    Answers,
    Choice,
    Plan,
    Problem,
    Question,
    Status,
    given,
    word,
)
from appliance.wizard.facts import Facts
from appliance.wizard.recipes import recipe_file

BUILD, RECIPE, IMPORT, CAPTURE, HEAD = "build", "recipe", "import", "capture", "head"
SCARCE = 3 << 30  # bytes: packages, tree and chunks of a minimal Debian come to about 2 GB while it is built


class Image:
    """An image: built, imported, or captured."""

    name, title = "image", "Image"
    headline = "Image: what shall the nodes run?"
    waits: tuple[str, ...] = ()
    explain = (
        "An image is an operating system that can be installed on any number of nodes. It can be built from packages"
        " without a machine to copy from; taken from a file or a directory; or captured from a machine that is set up"
        " as you like it, which is only read. Later changes are made once, in the image, and become its next version."
    )

    def status(self, facts: Facts, answers: Answers) -> Status:
        """Done when there is an image; the one that was named, if one was."""
        named = word(answers.get(self.name, {}), "name")
        image = facts.image(named) if named else facts.images[0] if facts.images else None
        if image is not None:
            return Status(DONE, image.ref)
        if not facts.root:
            return Status(BLOCKED, "making an image needs root: run it with sudo")
        return Status(OPEN, f"no image {named} yet" if named else "no image yet")

    def questions(self, facts: Facts, answers: Answers) -> tuple[Question, ...]:
        """The way in, its source, a name."""
        way = word(answers.get(self.name, {}), "way") or _usual(facts)
        release = f" {facts.release}" if facts.family == "debian" and facts.release else ""
        first = Question("way", "How", _usual(facts), (
            Choice(BUILD, f"Build Debian{release} from this head's own package sources",
                   "about 4 min, 800 MB" if facts.builder else "apt install mmdebstrap first", facts.builder),
            Choice(RECIPE, "Build from a recipe of your own", "a TOML file, see: gild.pyz help recipes"),
            Choice(IMPORT, "Import a file or a directory", "tar, OCI, qcow2, raw, .gild", not facts.builder),
            Choice(CAPTURE, "Capture a machine that is already set up", "it is only read"),
            Choice(HEAD, "This head itself", "without what belongs to this one machine"),
        ), explain="All five end in the same kind of image.")  # fmt: skip
        asked = [first]
        if way == RECIPE:
            asked.append(Question("recipe", "Recipe file", pattern="/.+", wants="a path from the root, /..."))
        if way == IMPORT:
            asked.append(Question("path", "File or directory", pattern="/.+", wants="a path from the root, /..."))
        if way == CAPTURE:
            asked.append(Question(
                "from", "From", "paste", pattern=r"paste|ssh:[^\s-]\S*", wants="ssh:USER@HOST, or paste",
                explain="ssh:root@gold reads that machine over ssh. paste prints a line to paste there; it works once.",
            ))  # fmt: skip
        asked.append(Question(
            "name", "Name", "compute", pattern="[a-z0-9][a-z0-9._-]{0,62}", wants="a-z, 0-9 and . _ -",
            explain="Versions of the image are called NAME:1, NAME:2 and so on.",
        ))  # fmt: skip
        if way == BUILD:
            asked.append(Question(
                "release", "Release", "", pattern="([a-z][a-z0-9.-]{0,40})?", wants="a codename such as bookworm",
                note="the head's own, if empty",
            ))  # fmt: skip
        return tuple(asked)

    def problems(self, facts: Facts, answers: Answers) -> tuple[Problem, ...]:
        """What the way in lacks."""
        values, found = given(self, facts, answers), []
        way = word(values, "way")
        if not facts.root:
            found.append(Problem("making an image needs root", "run it with sudo"))
        if way == BUILD and not facts.builder:
            found.append(Problem("mmdebstrap is not here", "apt install mmdebstrap; or take another way in"))
        if way == BUILD and facts.family not in ("debian", "ubuntu", ""):
            found.append(Problem(f"this head is {facts.family}: it has no package sources of Debian",
                                 "a recipe of your own can name a mirror: help recipes", stops=False))  # fmt: skip
        for key, what in (("recipe", "recipe file"), ("path", "file or directory to import")):
            path = word(values, key)
            if key in values and not path:
                found.append(Problem(f"which {what}?", "give its path"))
            elif key in values and path in facts.missing:
                found.append(Problem(f"there is no {path}", "give another path"))
        if way == CAPTURE and word(values, "from") == "paste" and facts.serving is None:
            found.append(Problem("a machine can only send to a head that serves", "first step 1, or capture over ssh"))
        if 0 < facts.free < SCARCE:
            found.append(Problem(f"{facts.free / 1e9:.1f} GB are free for {facts.state}; an image may need 3",
                                 "gild.pyz image gc, or a larger disk", stops=False))  # fmt: skip
        return tuple(found)

    def plan(self, facts: Facts, answers: Answers) -> Plan:
        """One command that makes the version."""
        values = given(self, facts, answers)
        way, name = word(values, "way"), word(values, "name")
        known = facts.image(name)
        ref = f"{name}:{known.newest + 1 if known else 1}"
        if way == BUILD:
            file = recipe_file(facts, answers)
            act = Act(("image", "build", file.path), (file,))
            return Plan(f"build {ref}, a few minutes. Nothing on any node changes.", (act,))
        ways: dict[str, tuple[str, tuple[str, ...]]] = {
            RECIPE: ("build", ("build", word(values, "recipe"), "--name", name)),
            IMPORT: ("import", ("import", word(values, "path"), "--name", name)),
            CAPTURE: ("capture", ("capture", name, "--from", word(values, "from"))),
            HEAD: ("capture this machine as", ("capture", name, "--from", "/")),
        }
        verb, words = ways[way]
        return Plan(f"{verb} {ref}. Nothing on any node changes.", (Act(("image", *words)),))

    def watch(self, facts: Facts, answers: Answers) -> tuple[str, ...]:
        """It waits for nothing."""
        return ()


def _usual(facts: Facts) -> str:
    return BUILD if facts.builder else IMPORT
