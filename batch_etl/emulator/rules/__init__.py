"""The rules that ``params`` are held to, one module a subject; ``lines`` applies them in order.

A rule takes what was sent and gives the message of the first breach, or None. Where a message is
the API's own, the code says where it was seen: (C) captured, (D) on a page of the official
documentation of August 2026, (R) quoted in a public issue. "Own words": the rule is documented,
its message is not known.

    verdict    the error of a line, and what the create's headers said
    turns      turns and their blocks: roles, types, tool calls and their results
    sampling   thinking, effort, temperature and its kin, stop sequences
    tools      tool definitions and tool_choice
    output     output_config, and what schemas may cost together
    caching    cache_control
    media      images and documents
"""
