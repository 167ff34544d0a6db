"""The errors a user can mend.

UserError                 printed without traceback; exit status 2
├── ConfigError           a wrong option or value
├── DataError             a file or record that does not hold what it should
│   └── MissingScaleError a size in microns was asked of an image that states no mpp
├── FormatVersionError    a stored file of a version this release does not read
└── LicenceError          the licence of data or weights forbids what was asked
"""


class UserError(Exception):
    """Something the user can mend; the message says what failed, where, what was expected and what to do."""


class ConfigError(UserError):
    """A wrong option, name or value in a recipe or on the command line."""


class DataError(UserError):
    """A file or a record does not hold what it should."""


class MissingScaleError(DataError):
    """Microns were asked of an image whose microns per pixel are unknown."""


class FormatVersionError(UserError):
    """A stored file says a format version that this release does not read."""


class LicenceError(UserError):
    """The licence of a data set or of weights forbids the use that was asked for."""
