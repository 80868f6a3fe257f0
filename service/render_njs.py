"""What the njs edge counts with, where its njs can."""

from __future__ import annotations

from service.settings import Edge


def njs_counters(edge: Edge) -> dict[str, str]:
    """Only the image's njs has shared dictionaries. They live in stream{}, and http{} asks for them over a socket."""
    if edge.nginx != "image":
        return {}
    sock = f"unix:{edge.run_dir}/counters.sock"
    return {
        "njs_counters_stream.inc": f"""
js_shared_dict_zone zone=tidegate:64k type=number;
server {{
    listen {sock};
    return $tidegate_counters;
}}
""",
        # Buffered, an answer that ends with the connection would be an [error] for each scrape.
        "njs_counters_http.inc": f"""
set $tidegate_counters /.counters;
location = /.counters {{
    internal;
    proxy_buffering off;
    proxy_pass http://{sock};
}}
""",
    }
