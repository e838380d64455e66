#!/usr/bin/env zsh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Prints what a real zsh offers for a line, each as a whole word: types the line into a terminal
# and presses TAB. Usage: offered.zsh LINE
zmodload zsh/zpty
hits=$(mktemp)
cat >$hits.rc <<EOF
autoload -U compinit
compinit -u -C -d /tmp/zcompdump
# Everything that is offered goes through compadd; -A, -D and -O ask it to match only.
compadd() {
    local -a found
    if [[ \${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
        builtin compadd -A found "\$@"
        (( \$#found )) && print -rl -- \$IPREFIX\${^found} >>$hits
    fi
    builtin compadd "\$@"
}
comppostfuncs=(noted)
noted() { print -n 'asked>' }
bindkey '^I' list-choices
PS1='ready>'
EOF
zpty terminal zsh -f -i
zpty -w terminal "source $hits.rc"
zpty -r terminal said '*ready>*'
zpty -n -w terminal $1$'\t'
zpty -r terminal said '*asked>*'
sort -u $hits
rm $hits $hits.rc
