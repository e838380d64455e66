#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Runs the commands of a golden case, inside its root: N.sh is one command line,
# its streams go to N.out and N.err, its exit code to N.rc, the calls of the
# stand-in tools to N.calls. Setup lines are N.sh too, sourced with what follows.

# module NAME VERSION [CONF-LINE…]: /usr/src/NAME-VERSION, a one-file module.
module() {
    local name=$1 version=$2
    shift 2
    conf "$name-$version" "PACKAGE_NAME=\"$name\"" "PACKAGE_VERSION=\"$version\"" \
        "BUILT_MODULE_NAME[0]=\"$name\"" 'DEST_MODULE_LOCATION[0]="/updates"' "$@"
    echo "obj-m := $name.o" >"/usr/src/$name-$version/Makefile"
    code "/usr/src/$name-$version/$name.c" "$version"
}

# conf DIR CONF-LINE…: writes /usr/src/DIR/dkms.conf.
conf() {
    local directory=/usr/src/$1
    shift
    mkdir -p "$directory"
    printf '%s\n' "$@" >"$directory/dkms.conf"
}

# code FILE [VERSION]: a module's source.
code() {
    echo "// $1" >"$1"
    [ $# = 1 ] || echo "MODULE_VERSION(\"$2\");" >>"$1"
}

# script FILE LINE…: an executable shell script.
script() {
    local file=$1
    shift
    mkdir -p "${file%/*}"
    { echo '#!/bin/sh' && printf '%s\n' "$@"; } >"$file"
    chmod 755 "$file"
}

# broken NAME VERSION: that module does not compile.
broken() {
    echo '#error this does not compile' >>"/usr/src/$1-$2/$1.c"
}

# kernel RELEASE: one more kernel, with headers.
kernel() {
    local release=$1
    cp -a "/usr/src/linux-headers-$K1" "/usr/src/linux-headers-$release"
    echo "#define UTS_RELEASE \"$release\"" >"/usr/src/linux-headers-$release/include/generated/utsrelease.h"
    cp -a "/lib/modules/$K1" "/lib/modules/$release"
    ln -sfn "/usr/src/linux-headers-$release" "/lib/modules/$release/build"
}

# outside: builds may write to all of the root, where they leave notes for the case.
outside() {
    printf '[build]\nsandbox = "off"\n' >/etc/dkms/policy.d/outside.toml
}

# running: makes a kernel of the root of the one that runs.
running() {
    kernel "$(uname -r)"
}

listing() {
    find /var/lib/dkms /usr/lib/modules /usr/src /etc /boot /tmp /var/tmp -xdev -printf '%y\t%p\t%l\n'
}

steps=$1
: "${steps:=$(cat /.golden/steps)}"
for ((step = 0; step < steps; step++)); do
    : >/.golden/calls
    if [ -e /.golden/$step.setup ]; then
        # Set up in this shell: what it defines is there for the next one.
        # shellcheck source=/dev/null
        . /.golden/$step.setup >/.golden/$step.out 2>/.golden/$step.err
        echo $? >/.golden/$step.rc
        continue
    fi
    [ -e /.golden/before ] || listing >/.golden/before
    # shellcheck source=/dev/null
    (. /.golden/$step.sh) >/.golden/$step.out 2>/.golden/$step.err </dev/null
    echo $? >/.golden/$step.rc
    mv /.golden/calls /.golden/$step.calls
done
listing >/.golden/after
