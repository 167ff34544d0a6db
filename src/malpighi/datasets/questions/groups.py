"""Groups that grow together: what shares a figure, a caption or an image is one group."""


class Groups:
    """A forest in which each tree is a group; names are joined in any order."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def join(self, name: str, *others: str) -> str:
        """Put all into one group, and give back the first name; ask `root` of it at the end.

        Example:
            >>> groups = Groups()
            >>> groups.join("figure 1", "caption a"), groups.join("figure 2", "caption a")
            ('figure 1', 'figure 2')
            >>> groups.root("figure 1") == groups.root("figure 2")
            True
        """
        for other in others:
            self._above[self.root(other)] = self.root(name)
        return name

    def root(self, name: str) -> str:
        """The name that stands for the whole group."""
        path: list[str] = []
        while self._above.get(name, name) != name:
            path.append(name)
            name = self._above[name]
        self._above.update(dict.fromkeys(path, name))
        return name
