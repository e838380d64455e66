# SPDX-License-Identifier: MIT OR Apache-2.0
# fish completion: what may come next is dkms's own to say (dkms complete WORDS…).
function __dkms_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    # sbin is not in everybody's path.
    set -lx PATH $PATH /usr/sbin /sbin
    set -l answer ($words[1] complete $words[2..] "$typed" 2>/dev/null)
    printf '%s\n' $answer[2..]
    set -l option (string match -r -- '^--[^=]*=' "$typed"; or echo)
    set typed (string replace -r -- '^--[^=]*=' '' "$typed")
    switch "$answer[1]"
        case directories
            printf '%s\n' $option(__fish_complete_directories "$typed" '')
        case files
            printf '%s\n' $option(__fish_complete_path "$typed" '')
        case archives
            printf '%s\n' $option(__fish_complete_path "$typed" '' |
                string match -re '/\t?$|\.(?:tar(?:\..*)?|tgz|tbz|tbz2|txz|tzst)\t?$')
    end
end
complete -c dkms -f -a '(__dkms_complete)'
