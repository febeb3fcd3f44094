"""What is pasted on a golden client, and what runs there then: text for two shells, with the head's key in it.

Nothing in the way may see the password hashes of /etc/shadow or put its own commands in: curl compares the key of
whoever answers with the one in the line even where -k forgives the certificate's issuer (curl(1), --pinnedpubkey), and
the other line compares the whole certificate before it asks for anything.
"""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from images.sources.client import FACTS

CURL = """
post() { curl -q -sS --noproxy '*' -k --pinnedpubkey PIN -H 'Content-Type: text/plain' --data-binary @- "URL/$1"; }
put() { curl -q -sS -N --noproxy '*' -k --pinnedpubkey PIN -T - "URL/$1"; }
"""
PYTHON = """
PROGRAM='
import hashlib, http.client, ssl, sys
def pieces():
    done = shown = 0
    while True:
        piece = sys.stdin.buffer.read1(1 << 18)
        if not piece:
            return
        done += len(piece)
        if done - shown >= 1 << 28:
            shown = done
            sys.stderr.write("gild: %d MiB are sent\\n" % (done >> 20))
        yield piece
head = http.client.HTTPSConnection("HOST", PORT, context=ssl._create_unverified_context())
head.connect()
if hashlib.sha256(head.sock.getpeercert(True)).hexdigest() != "PRINT":
    sys.exit("gild: what answers at HOST is not the head")
try:
    head.request(sys.argv[1], "PATH/" + sys.argv[2], pieces(), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
except OSError:
    pass
for line in head.getresponse():
    sys.stdout.buffer.write(line)
    sys.stdout.flush()
'
post() { python3 -c "$PROGRAM" POST "$1"; }
put() { python3 -c "$PROGRAM" PUT "$1"; }
"""
MAIN = """
say() { echo "gild: $*" >&2; }
hear() {
  ending="the head does not say how it ended; look there"
  while IFS= read -r line; do
    case $line in
      "+ "*) say "${line#??}" ;;
      "= "*) say "${line#??}"; ending= ;;
      "! "*) say "${line#??}"; ending=said ;;
    esac
  done
  case $ending in "") return 0 ;; said) ;; *) say "$ending" ;; esac
  return 1
}
main() {
  root=/
  while [ $# -gt 0 ]; do
    case $1 in
      --root) root=${2%/}; root=${root:-/}; shift ;;
      *) say "there is no option $1; there is --root DIR, for a system that is mounted there"; return 2 ;;
    esac
    shift
  done
  if [ "$(id -u)" != 0 ]; then say "reading every file needs root: write sudo before the last word"; return 1; fi
  if [ ! -d "$root/etc" ]; then say "$root is not the root of a system"; return 1; fi
  say "telling the head HOST what this machine is"
  plan=$(facts </dev/null | post facts) || { say "the head HOST does not answer"; return 1; }
  case $plan in
    "# read"*) ;;
    *) printf '%s\\n' "$plan" | hear; return 1 ;;
  esac
  say "sending this system to the head"
  (eval "$plan") </dev/null | put tree | hear
}
main "$@"
"""


@dataclass(frozen=True)
class Pin:
    """By what a client knows the head: curl's form of its public key, and the sha256 of its certificate."""

    key: str
    certificate: str


def pin(certificate: bytes) -> Pin:
    """The pins of a certificate in PEM."""
    known = x509.load_pem_x509_certificate(certificate)
    public = known.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public)
    return Pin(f"sha256//{base64.b64encode(digest.finalize()).decode()}", known.fingerprint(hashes.SHA256()).hex())


def line(host: str, port: int, path: str, known: Pin) -> str:
    """The line to paste where there is curl (7.39 or later)."""
    url = f"https://{host}:{port}{path}"
    return f"curl -sS --noproxy '*' -k --pinnedpubkey {known.key} {url} | sudo sh"


def python_line(host: str, port: int, path: str, known: Pin) -> str:
    """The line to paste where there is none, but Python 3."""
    program = (
        f"import hashlib,http.client as h,ssl,subprocess as s;c=h.HTTPSConnection('{host}',{port},"
        "context=ssl._create_unverified_context());c.connect();"
        f"assert hashlib.sha256(c.sock.getpeercert(True)).hexdigest()=='{known.certificate}','not the head';"
        f"c.request('GET','{path}?with=python3');"
        "raise SystemExit(s.run(['sh'],input=c.getresponse().read()).returncode)"
    )
    return f'sudo python3 -c "{program}"'


def script(host: str, port: int, path: str, known: Pin, *, python: bool = False) -> str:
    """What the pasted line runs: it tells the head what the client is, and sends what the head then asks for."""
    words = {"HOST": host, "PORT": str(port), "PATH": path, "PIN": known.key, "PRINT": known.certificate}
    words["URL"] = f"https://{host}:{port}{path}"
    doors = PYTHON if python else CURL
    for word, value in words.items():
        doors = doors.replace(word, value)
    return f"# gild: sends this system to its head as an image, once\n{FACTS}{doors}{MAIN.replace('HOST', host)}"


def refusal(message: str) -> str:
    """A script that only says why there is none."""
    return f"echo {shlex.quote('gild: ' + message)} >&2; exit 1\n"
