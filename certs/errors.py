"""The errors of this package, in one small tree.

    CertificateError
    ├── CertificateFileError   a file is missing, closed to us, or too open to others
    ├── ExpiredError           a new certificate has expired already
    ├── UnusablePairError      what the files hold is no certificate and key that TLS can use
    └── WrongHostnameError     the certificate is sound, but for other names than ours

A message is one line: the file, what is wrong with it, and what would be right. It never holds
any part of a key.
"""


class CertificateError(Exception):
    """No certificate can be served."""


class CertificateFileError(CertificateError):
    """The file system stands between us and the certificate or its key."""


class ExpiredError(CertificateError):
    """The new certificate is no better than none."""


class UnusablePairError(CertificateError):
    """The contents are no certificate chain and private key that belong together."""


class WrongHostnameError(CertificateError):
    """The certificate does not name the host that the relay serves."""
