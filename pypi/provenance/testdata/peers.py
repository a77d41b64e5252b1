"""Ask pypi-attestations about provenance objects, with a given trust root.

usage: peers.py ROOT QUESTIONS

Its own trust roots are not asked: the verifier for production is replaced by
one with ROOT, so that nothing is fetched.
"""

import json
import sys

from pypi_attestations import AttestationError, Distribution, Provenance
from sigstore.models import TrustedRoot
from sigstore.verify import Verifier

verifier = Verifier(trusted_root=TrustedRoot.from_file(sys.argv[1]))
Verifier.production = classmethod(lambda cls, *, offline=False: verifier)


def verify(question):
    """Verify every attestation of an object, as its publisher's."""
    dist = Distribution(name=question["file"], digest=question["sha256"])
    seen = 0
    for bundle in Provenance.model_validate_json(question["object"]).attestation_bundles:
        for attestation in bundle.attestations:
            attestation.verify(bundle.publisher, dist, offline=True)
            seen += 1
    if not seen:
        raise ValueError("no attestation")


with open(sys.argv[2], encoding="utf-8") as f:
    questions = json.load(f)
answers = {}
for name, question in questions.items():
    try:
        verify(question)
        answers[name] = {"ok": True, "why": ""}
    # Not only AttestationError: it lets errors of the libraries below through.
    except Exception as e:
        kind = "" if isinstance(e, AttestationError) else type(e).__name__ + ": "
        answers[name] = {"ok": False, "why": (kind + str(e))[:200]}
json.dump(answers, sys.stdout)
