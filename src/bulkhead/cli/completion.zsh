#compdef bulkhead
# Completion of bulkhead for zsh: source <(bulkhead completion zsh), or a file _bulkhead in a directory of $fpath
__bulkhead_list() {
    case $1 in
    instances) BULKHEAD_AUTOSTART=no bulkhead ps -a 2>/dev/null | awk 'NR > 1 { print $2 }' ;;
    images) BULKHEAD_AUTOSTART=no bulkhead image ls 2>/dev/null | awk 'NR > 1 && $1 != "<none>" { print $1 }' ;;
    plans | networks | volumes | snapshots) BULKHEAD_AUTOSTART=no bulkhead "${1%s}" ls -q 2>/dev/null ;;
    esac
}

__bulkhead_names() {
    local -a found
    found=("${(@f)$(__bulkhead_list ${@[-1]})}")
    compadd "${@[1,-2]}" -a found
}

__bulkhead_spec() {
    local command=$1 curcontext=$curcontext
    case $command in
@CASES@
    esac
}

_bulkhead() {
    local -a commands words_left
    local words_of at=2
    while [[ ${words[at]} == -* && at -lt CURRENT ]]; do
        [[ ${words[at]} == --config ]] && ((at++))
        ((at++))
    done
    if ((at >= CURRENT)); then
        commands=(
@DESCRIBED@
        )
        _describe command commands
        compadd -- --config --version --help
        return
    fi
    local command=${words[at]}
    words_of=$(__bulkhead_group $command)
    if [[ -n $words_of ]]; then
        ((at++))
        if ((at >= CURRENT)); then
            compadd -- ${=words_of}
            return
        fi
        command+=" ${words[at]}"
    fi
    # _arguments takes the first word for the command.
    words=("$command" "${(@)words[at + 1,-1]}")
    ((CURRENT -= at - 1))
    __bulkhead_spec "$command"
}

__bulkhead_group() {
    local words=''
    case $1 in
@GROUPS@
    esac
    print -r -- $words
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _bulkhead "$@"
else
    compdef _bulkhead bulkhead
fi
