"""Knowledge: documents on their way to vectors, and the search in them."""

from __future__ import annotations

from assistant_monitoring.dashboards.panels import NAMESPACE, TENANT, Panel, Query, View

N, T = 'namespace=~"$namespace"', 'tenant=~"$tenant"'
NO_BASES = "No knowledge base, or its documents could not be counted."
IDLE = "No document was worked on in this time."
QUIET = "No search in this time."
_I = "[$__rate_interval]"

VIEW = View(
    "knowledge",
    "Knowledge",
    "Documents that wait, stages and results of ingestion, vectors against chunks, and searches.",
    (NAMESPACE, TENANT),
    {
        "Ingestion": (
            Panel(
                "Documents that wait",
                "Documents that are not ready yet, by tenant.",
                "short",
                (Query(f'max by (tenant) (assistant_tenant_knowledge{{{N},{T},what="pending"}})', "{{tenant}}"),),
                NO_BASES,
                "tenant",
            ),
            Panel(
                "Documents by result",
                "Documents per second that became ready, failed, were put back or removed.",
                "short",
                (Query(f"sum by (result) (rate(assistant_documents_total{{{T}}}{_I}))", "{{result}}"),),
                IDLE,
                "tenant",
            ),
            Panel(
                "From upload to ready",
                "Median and 95th percentile of the time from upload to ready.",
                "s",
                tuple(
                    Query(
                        f"histogram_quantile({quantile}, sum by (le) ("
                        f"rate(assistant_ingest_time_to_ready_seconds_bucket{{{T}}}{_I})))",
                        title,
                    )
                    for quantile, title in ((0.5, "median"), (0.95, "95 %"))
                ),
                IDLE,
                "tenant",
            ),
            Panel(
                "Time by stage",
                "95th percentile of the time of each stage of ingestion.",
                "s",
                (
                    Query(
                        "histogram_quantile(0.95, sum by (le, stage) (rate(assistant_ingest_duration_seconds_bucket"
                        f"{{{T}}}{_I})))",
                        "{{stage}}",
                    ),
                ),
                IDLE,
                "models",
            ),
            Panel(
                "Chunks written",
                "Chunks per second written to the vector store, by knowledge base.",
                "short",
                (
                    Query(
                        f"sum by (tenant, knowledge_base) (rate(assistant_chunks_total{{{T}}}{_I}))",
                        "{{tenant}} {{knowledge_base}}",
                    ),
                ),
                IDLE,
                "tenant",
            ),
            Panel(
                "Failed documents",
                "Documents that failed for good, by tenant; their rows say why.",
                "short",
                (Query(f'max by (tenant) (assistant_tenant_knowledge{{{N},{T},what="failed"}})', "{{tenant}}"),),
                NO_BASES,
                "tenant",
            ),
        ),
        "Vectors": (
            Panel(
                "Vectors against chunks",
                "Vectors that are there minus those that should be, by tenant; not 0 at rest is a fault.",
                "short",
                (
                    Query(
                        f'max by (tenant) (assistant_tenant_knowledge{{{N},{T},what="vectors"}})'
                        f' - max by (tenant) (assistant_tenant_knowledge{{{N},{T},what="chunks"}})',
                        "{{tenant}}",
                    ),
                ),
                NO_BASES,
                "platform",
            ),
            Panel(
                "Vectors",
                "How many vectors each tenant has.",
                "short",
                (Query(f'max by (tenant) (assistant_tenant_knowledge{{{N},{T},what="vectors"}})', "{{tenant}}"),),
                NO_BASES,
                "platform",
            ),
            Panel(
                "Breakers of stores",
                "Whether tenants' pods ask their stores: 0 closed, 1 half-open, 2 open.",
                "short",
                (Query(f"max by (tenant, store) (assistant_store_breaker_state{{{T}}})", "{{tenant}} {{store}}"),),
                "No store has failed since the pods started.",
                "platform",
            ),
        ),
        "Search": (
            Panel(
                "Searches by result",
                "Searches per second that found something, nothing, or failed.",
                "reqps",
                (Query(f"sum by (result) (rate(assistant_retrievals_total{{{T}}}{_I}))", "{{result}}"),),
                QUIET,
                "tenant",
            ),
            Panel(
                "Time of a search",
                "Median and 95th percentile of the time of a search, the embedding of the question included.",
                "s",
                tuple(
                    Query(
                        f"histogram_quantile({quantile}, sum by (le) (rate(assistant_retrieval_duration_seconds_bucket"
                        f"{{{T}}}{_I})))",
                        title,
                    )
                    for quantile, title in ((0.5, "median"), (0.95, "95 %"))
                ),
                QUIET,
                "models",
            ),
            Panel(
                "Searches that find nothing",
                "Share of searches without a passage, by knowledge base: what it does not hold, or holds badly.",
                "percentunit",
                (
                    Query(
                        f'sum by (tenant, knowledge_base) (rate(assistant_retrievals_total{{{T},result="empty"}}{_I}))'
                        f" / sum by (tenant, knowledge_base) (rate(assistant_retrievals_total{{{T}}}{_I}))",
                        "{{tenant}} {{knowledge_base}}",
                    ),
                ),
                "Every search has found something, or there were no searches.",
                "tenant",
            ),
        ),
    },
)
