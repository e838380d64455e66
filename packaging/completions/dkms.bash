# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# bash completion: what may come next is dkms's own to say (dkms complete WORDS…).
_dkms() {
    local typed=$2 words=() word glue='' before files i
    # bash takes words apart at = and :, --option=value among them.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == +([=:]) && ${#words[@]} -gt 0 ]]; then
            words[-1]+=$word
            glue=yes
            continue
        fi
        if ((i == COMP_CWORD)); then
            word=$typed
            [[ ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && glue=''
        fi
        if [[ $glue ]]; then words[-1]+=$word; else words+=("$word"); fi
        glue=''
    done
    # What is typed may be the end of a word only.
    before=${words[-1]%"$typed"}
    COMPREPLY=()
    {
        read -r files
        while IFS=$'\t' read -r word _; do
            [[ $word == "${words[-1]}"* ]] || continue
            printf -v word %q "${word#"$before"}"
            COMPREPLY+=("$word")
        done
        # sbin is not in everybody's path.
    } < <(PATH=$PATH:/usr/sbin:/sbin command -- "$1" complete "${words[@]}" 2>/dev/null)
    if [[ $files == directories ]]; then
        mapfile -t COMPREPLY < <(compgen -d -- "$typed")
    elif [[ $files == files || $files == archives ]]; then
        while read -r word; do
            [[ $files == files || -d $word || $word == *.@(tar|tar.*|tgz|tbz|tbz2|txz|tzst) ]] &&
                COMPREPLY+=("$word")
        done < <(compgen -f -- "$typed")
    fi
    [[ $files == none ]] || compopt -o filenames 2>/dev/null
    [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null
}
complete -F _dkms dkms
