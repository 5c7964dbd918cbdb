"""Everything that a release is made of: `python3 noxfile.py -s release` runs this, and the tests.

    make        the whole: all files of a release in one folder, with their checksums
    project     the version, the date, and where things are
    bundle      the relay with all that it needs, for every Python, for one architecture
    pyz         derper.pyz: the bundles in one file             (inside: what runs in it)
    manpage     derper.8, from the flag table
    debian      the Debian package, of a bundle
    sbom        what is in it all, as CycloneDX
    notes       the text of a release, out of CHANGELOG.md
    chart       the version, in the Helm chart
    site        the documentation as a site      (sitehooks: what mkdocs calls for each page)

RELEASING.md says when it is run, and why these forms.
"""
