# SPDX-License-Identifier: Apache-2.0
"""The HTTP API of a CentralAgent: FastAPI for routing and OpenAPI, pydantic and orjson for bodies.

- `models`: bodies that only HTTP has. `routes`: the operations. `body`: bounded reading. `errors`: the table from our
  errors to status codes. `envelope`: request ids, metrics, the last catch. `pages`: the two HTML pages.
- Every error is an ErrorBody `{error, code, timestamp, details}`; a traceback goes to the log with the request id,
  never to the client.
- A body is measured while it is read and refused before it is parsed. A single task may have the largest payload that
  any queue takes plus 64 KiB for the rest; a batch 32 MiB, or that if it is more. The exact limit of a payload is the
  queue's and is checked per task.
- A wait for results holds one asyncio task and no thread or connection to Redis. It ends early when the client hangs up
  or when the process drains: then the answer is 202, and the client asks again at another pod.
"""
