# cmake -D TOP=FOLDER -D LIST=FILE -D OUT=HEADER -P sources_id.cmake
#
# One id of the files that are named in LIST (relative to TOP, one a line): what stands in them, whatever folder they lie
# in and whatever builds them. Comments and white space do not count, so that a word mended does not part two versions.
cmake_minimum_required(VERSION 3.25)
file(STRINGS ${LIST} files)
set(all "")
foreach(file IN LISTS files)
    file(READ ${TOP}/${file} text)
    string(REGEX REPLACE "/\\*([^*]|\\*+[^*/])*\\*+/" " " text "${text}")
    string(REGEX REPLACE "[ \t\r\n]+" " " text "${text}")
    string(SHA256 hash "${text}")
    string(APPEND all "${file} ${hash}\n")
endforeach()
string(SHA256 id "${all}")
string(SUBSTRING "${id}" 0 16 id)
file(WRITE ${OUT} "#define SOURCES_ID \"${id}\"\n")
