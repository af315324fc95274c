# Completion of bulkhead for bash 4 and later: source <(bulkhead completion bash)
__bulkhead_list() {
    case $1 in
    instances) BULKHEAD_AUTOSTART=no bulkhead ps -a 2>/dev/null | awk 'NR > 1 { print $2 }' ;;
    images) BULKHEAD_AUTOSTART=no bulkhead image ls 2>/dev/null | awk 'NR > 1 && $1 != "<none>" { print $1 }' ;;
    plans | networks | volumes | snapshots) BULKHEAD_AUTOSTART=no bulkhead "${1%s}" ls -q 2>/dev/null ;;
    esac
}

__bulkhead_words() { # of a kind
    case $1 in
    instances | images | plans | networks | volumes | snapshots) __bulkhead_list "$1" ;;
    files | rest | -) ;;
    *) printf '%s\n' $1 ;;
    esac
}

__bulkhead_spec() {
    case $1 in
@CASES@
    esac
}

_bulkhead() {
    local line=${COMP_LINE:0:COMP_POINT} cur='' at=1 command words='' flags='' kind='' given=0 positional=()
    local -A valued=()
    local -a typed
    COMPREPLY=()
    read -ra typed <<<"$line"
    if [[ $line != *[[:space:]] ]]; then
        cur=${typed[-1]}
        unset 'typed[-1]'
    fi
    while [[ ${typed[at]} == -* ]]; do
        [[ ${typed[at]} == --config ]] && ((at++))
        ((at++))
    done
    command=${typed[at]}
    case $command in
    '') words='@COMMANDS@ --config --version --help' ;;
@GROUPS@
    esac
    if [[ -n $words && -n $command && -n ${typed[at + 1]} ]]; then
        ((at++))
        command+=" ${typed[at]}"
        words=''
    fi
    if [[ -z $words ]]; then
        __bulkhead_spec "$command"
        for ((at++; at < ${#typed[@]}; at++)); do
            kind=''
            if [[ ${typed[at]} == -* && ${positional[given]} != rest ]]; then
                kind=${valued[${typed[at]}]}
                [[ -n $kind ]] && ((at++))
            elif [[ ${positional[given]} != *+ ]]; then
                ((given++))
            fi
        done
        if [[ -n $kind && $at -gt ${#typed[@]} ]]; then
            words=$(__bulkhead_words "$kind")
        elif [[ $cur == -* && ${positional[given]} != rest ]]; then
            words=$flags
        elif ((given < ${#positional[@]})); then
            words=$(__bulkhead_words "${positional[given]%+}")
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    # bash takes a colon for the end of a word: only what comes after it is put in.
    if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*:}"}"}")
    fi
}
complete -o bashdefault -o default -F _bulkhead bulkhead
