"""The namespace and its bytes: names to nodes, nodes to files on branches."""
