#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Prints what a real bash offers for a line, as it would insert it: types the line into a terminal
# and presses TAB. Usage: offered.bash LINE
hits=$(mktemp)
export hits
cat >"$hits.rc" <<'EOF'
. /usr/share/bash-completion/completions/dkms
_noted() {
    _dkms "$@"
    printf '%s\n' "${COMPREPLY[@]}" >"$hits"
}
complete -F _noted dkms
PS1='ready>'
EOF
coproc script -qec "bash --noprofile --rcfile $hits.rc -i" /dev/null
read -r -d '>' -u "${COPROC[0]}"
# ^U takes the line back, whatever is open in it.
printf '%s\t\025exit\n' "$1" >&"${COPROC[1]}"
cat >/dev/null <&"${COPROC[0]}"
cat "$hits"
rm "$hits" "$hits.rc"
