# SPDX-License-Identifier: Apache-2.0
"""What the children of a custom resource should be: pure functions from specs to manifests.

No clock, no randomness, no I/O: equal inputs give equal manifests, which is what makes a resync free. Only fields that
the operator means to own are spelled out; the rest is left to the API server's defaults and to others. There are three
rules for whoever adds a field here:

- No empty list or map: the API server drops them, and the manifest would seem to differ forever.
- Quantities go through `fingerprint.quantity`.
- Inside of an atomic structure (`fieldRef`, `volumeClaimTemplates`; see the OpenAPI's x-kubernetes-list-type and
  x-kubernetes-map-type) the API server's defaults have to be spelled out. `tests/e2e/operator` fails otherwise: it
  asserts that a restarted operator writes nothing.
"""
