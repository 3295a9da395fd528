# SPDX-License-Identifier: Apache-2.0
"""One pass over one custom resource: look at everything, write what differs, say in the status how it is.

Level-triggered: a reconcile does not know why it was called, and may be called at any time, be cut anywhere and be
called again. All kinds take the same steps:

    1. read the object, what it refers to, its children and the queue's sample from memory
    2. if it cannot be acted on (an invalid spec, something missing), that is the obstacle; its children stay
    3. else bring the children where they should be; what the API server refuses is the obstacle
    4. compute the report, write the status if it differs, say when to look again
"""
