# SPDX-License-Identifier: Apache-2.0
"""`kubeagents logs`: what the processes of an agent print, in a local session or in a cluster."""

from typing import Annotated

import typer

from agent_runtime.cli import options, session
from agent_runtime.cli.errors import CliError
from agent_runtime.cli.options import Target, is_kubectl_plugin


def logs(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The Agent or CentralAgent.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", min=0, metavar="LINES", help="Only the last lines of each process.")
    ] = None,
    namespace: options.Namespace = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
) -> None:
    """Show the logs of an agent: of all its local processes, or of all its pods.

    A running `kubeagents dev` that has the agent comes first, then the cluster of the kubeconfig. With several
    processes, each line begins with the name of its process.

    Examples:

        {prog} logs echo --tail 20
        {prog} logs echo --follow
    """
    target = Target(namespace=namespace, context=context, kubeconfig=kubeconfig)
    if not target.names_a_cluster and not is_kubectl_plugin() and namespace is None:
        sessions = session.running_sessions()
        entries = [entry for running in sessions for entry in running.logs if entry.owner == agent]
        if entries:
            from agent_runtime.cli.log_files import show_files

            show_files(entries, tail=tail, follow=follow)
            return
    from agent_runtime.cli.pod_logs import show_pods
    from agent_runtime.cli.server import find_cluster

    cluster = find_cluster(target)
    if cluster is None:
        names = sorted({entry.owner for running in session.running_sessions() for entry in running.logs})
        raise CliError(
            f'no running `kubeagents dev` has an agent "{agent}"'
            + (f" (they have: {', '.join(names)})" if names else "")
            + ", and there is no kubeconfig"
        )
    show_pods(cluster, agent, namespace=namespace or cluster.namespace, tail=tail, follow=follow)
