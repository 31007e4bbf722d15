# A room is a static library. Its PUBLIC headers lie in its own folder and are included by base name
# with the room as prefix: room coordinator/core, header core.h -> #include "core/core.h".
#
#   muster_room(core SOURCES a.c b.c NEEDS other_room pkg::uv PRIVATE pkg::sqlite)
#
# NEEDS are visible to users of the room (public includes), PRIVATE ones are not.
function(muster_room name)
    cmake_parse_arguments(R "" "" "SOURCES;NEEDS;PRIVATE" ${ARGN})
    add_library(${name} STATIC ${R_SOURCES})
    get_filename_component(parent ${CMAKE_CURRENT_SOURCE_DIR} DIRECTORY)
    get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
    # A private farm with one link per room: a target sees the rooms it needs and no neighbour.
    set(farm ${CMAKE_BINARY_DIR}/include/${name})
    file(MAKE_DIRECTORY ${farm})
    file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${farm}/${folder} SYMBOLIC)
    target_include_directories(${name} PUBLIC ${farm})
    target_link_libraries(${name} PUBLIC ${R_NEEDS} PRIVATE ${R_PRIVATE})
endfunction()

function(muster_program name)
    cmake_parse_arguments(P "" "" "SOURCES;NEEDS" ${ARGN})
    add_executable(${name} ${P_SOURCES})
    target_link_libraries(${name} PRIVATE ${P_NEEDS})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endfunction()

# muster_test(unit_core SOURCES test_core.c NEEDS core [TIMEOUT s] [LABELS unit]): a cmocka program run by ctest.
function(muster_test name)
    cmake_parse_arguments(T "" "TIMEOUT" "SOURCES;NEEDS;LABELS;ARGS" ${ARGN})
    add_executable(${name} ${T_SOURCES})
    target_link_libraries(${name} PRIVATE ${T_NEEDS} pkg::cmocka)
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    add_test(NAME ${name} COMMAND ${name} ${T_ARGS})
    if(NOT T_TIMEOUT)
        set(T_TIMEOUT 120)
    endif()
    if(NOT T_LABELS)
        set(T_LABELS unit)
    endif()
    set_tests_properties(${name} PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "${T_LABELS}")
endfunction()
